//! Remote models: llama.cpp's own server with random models (tests/openai_server), and servers that answer badly.

mod hostile;
mod real;
mod support;
mod turns;
