//! What included files name of libraries that are heavy, or that read nothing themselves.

use std::fmt::Debug;

/// Of GStreamer: how something is coded.
#[derive(Debug, Clone, PartialEq)]
pub struct Caps(pub String);

impl Caps {
    pub fn builder(name: &str) -> Self {
        Self(name.to_owned())
    }

    pub fn field<T>(self, _: &str, _: T) -> Self {
        self
    }

    pub fn build(self) -> Self {
        self
    }
}

/// Of GStreamer: bytes.
pub struct Buffer(pub Vec<u8>);

impl Buffer {
    pub fn from_slice(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

/// Of `sightline-media`.
pub mod codecs {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Medium {
        Video,
        Audio,
    }

    pub fn caps(text: &'static str) -> super::Caps {
        super::Caps(text.to_owned())
    }
}

/// Of whisper.cpp: the number of a language.
pub fn get_lang_id(said: &str) -> Option<i32> {
    assert!(!said.contains('\0'), "the library panics");
    ["en", "english"].contains(&said).then_some(0)
}

pub fn get_lang_str(_: i32) -> Option<&'static str> {
    Some("en")
}

/// Of fastembed: how vectors are made of a text's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    Mean,
    Cls,
}

/// Of fastembed: the models that it knows.
pub struct TextEmbedding;

pub struct ModelInfo {
    pub model_code: String,
    pub model: Pooling,
}

impl TextEmbedding {
    pub fn list_supported_models() -> Vec<ModelInfo> {
        let known = [
            ("Qdrant/bge-small-en-v1.5-onnx-Q", Pooling::Cls),
            ("x/e5-small", Pooling::Mean),
        ];
        let info = |(code, model): (&str, Pooling)| ModelInfo {
            model_code: code.to_owned(),
            model,
        };
        known.map(info).into()
    }

    pub fn get_default_pooling_method(model: &Pooling) -> Option<Pooling> {
        Some(*model)
    }
}
