//! Options that hold a secret: neither `Debug` nor an error repeats it.

use std::ffi::OsStr;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};

/// A text that is not shown.
#[derive(Clone)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl FromStr for Secret {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let visible = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if visible {
            Ok(Self(text.to_owned()))
        } else {
            Err("it has to be visible ASCII characters, without spaces")
        }
    }
}

/// The `value_parser` of an option that holds a secret: clap's own would repeat what it can't read. `T`'s error may not either.
pub fn unrepeated<T>() -> Unrepeated<T> {
    Unrepeated(PhantomData)
}

/// See [`unrepeated`].
#[derive(Debug)]
pub struct Unrepeated<T>(PhantomData<fn() -> T>);

impl<T> Clone for Unrepeated<T> {
    fn clone(&self) -> Self {
        unrepeated()
    }
}

impl<T> TypedValueParser for Unrepeated<T>
where
    T: FromStr<Err: fmt::Display> + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(&self, cmd: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, Error> {
        let refused = |why: &dyn fmt::Display| {
            let named = arg.map_or_else(|| "a secret".to_owned(), |arg| format!("'{arg}'"));
            let text = format!("the value of {named} is not understood: {why}\n");
            Error::raw(ErrorKind::ValueValidation, text).with_cmd(cmd)
        };
        let text = value.to_str().ok_or_else(|| refused(&"it is not UTF-8"))?;
        text.parse().map_err(|why| refused(&why))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use clap::Parser;

    use crate::args::Cli;

    #[test]
    fn what_is_wrong_with_a_secret_is_told_without_it() {
        let cases: [(&[&str], &str, &[u8]); 5] = [
            (&["up"], "--api-key", b"s3cret with spaces"),
            (&["up"], "--otlp-headers", b"s3cret"),
            (&["up"], "--otlp-headers", b"authorization=s3cret%0a"),
            (&["stream", "list"], "--key", b"s3cret\n"),
            (&["stream", "list"], "--key", b"s3cret\xff"),
        ];
        for (command, option, value) in cases {
            let value = std::ffi::OsString::from_vec(value.to_owned());
            let told = ["sightline"].iter().chain(command).chain([&option]);
            let told = told.map(Into::into).chain([value]);
            let refused = Cli::try_parse_from(told).expect_err(option).to_string();
            assert!(refused.contains(option), "{refused}");
            assert!(!refused.contains("s3cret"), "{refused}");
        }
    }
}
