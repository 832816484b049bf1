//! What a firing's receivers get: the usual body, and bodies by a template of the alert's owner.
//!
//! The gateway tries a template out before it takes it, the alerts service makes the bodies: both by the same code.

mod body;
mod template;

pub use body::{Body, PHASES, content_type};
pub use template::{MAX_OUTPUT, TemplateError, check, render};
