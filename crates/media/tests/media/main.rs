//! Sources as they are: the sample clip, clips made for the case, a real RTSP server, and hostile ones.

mod bad;
mod camera;
mod digest;
mod elsewhere;
mod hearing;
mod hostile;
mod inspect;
mod measuring;
mod moments;
mod playback;
mod recording;
mod remote;
mod sampling;
mod support;
