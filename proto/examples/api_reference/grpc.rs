//! `grpc.md`: services with their methods, the messages and enums they share, and the reasons of errors.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::{Context, Result};
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, ServiceDescriptorProto,
};
use sightline_proto::FILE_DESCRIPTOR_SET;
use sightline_proto::reasons::Reason;

use crate::comments::{
    Comments, ENUM, MEMBER, MESSAGE, NESTED_ENUM, NESTED_MESSAGE, SERVICE, within,
};

const PACKAGE: &str = "sightline.v1";

const HEAD: &str = "\
<!-- Written by `make docs` from proto/sightline/v1 and proto/src/reasons.rs: change those. -->
# The gRPC API

Package `sightline.v1`, in `proto/sightline/v1`. A server offers it on its one public port, 7700 unless told otherwise, as gRPC and
gRPC-web, with reflection and the gRPC health service.

- **Keys.** Every call carries an API key as metadata: `x-access-token: KEY`, or `authorization: Bearer KEY`.
- **Errors** are `google.rpc.Status` with one `google.rpc.ErrorInfo`, whose `reason` is stable and for programs (see
  [reasons](#reasons)), and with `google.rpc.BadRequest` where fields are at fault. The message is for people.
- **Pages.** Lists take `page_size` and `page_token`, and answer `next_page_token`. A token is good for the same list with the same
  parameters only.
- **Retries.** Methods that create take a `request_id`, a UUID of the caller's: the same one again answers with what was made before.
- **Deadlines.** A call's deadline, and its cancellation, stop the work.

";

/// The page.
///
/// # Errors
/// When the descriptors hold something that this does not know.
pub fn page() -> Result<String> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)?;
    let mut files: Vec<_> = set.file.iter().filter(|f| f.package() == PACKAGE).collect();
    files.sort_by_key(|file| file.name());
    let mut page = Page {
        text: HEAD.to_owned(),
        shown: BTreeSet::new(),
    };
    page.contents(&files)?;
    for file in &files {
        page.services(file)?;
    }
    page.text.push_str("## Messages and enums\n\n");
    for file in &files {
        page.shared(file)?;
    }
    page.reasons()?;
    Ok(page.text)
}

struct Page {
    text: String,
    /// Requests and responses, which stand with their methods.
    shown: BTreeSet<String>,
}

impl Page {
    fn contents(&mut self, files: &[&FileDescriptorProto]) -> Result<()> {
        for service in files.iter().flat_map(|file| &file.service) {
            let methods = service.method.iter().map(|method| link(method.name()));
            let methods = methods.collect::<Vec<_>>().join(", ");
            writeln!(self.text, "- {}: {methods}", link(service.name()))?;
        }
        self.text
            .push_str("- [Messages and enums](#messages-and-enums)\n- [Reasons](#reasons)\n\n");
        Ok(())
    }

    fn services(&mut self, file: &FileDescriptorProto) -> Result<()> {
        let comments = Comments::of(file);
        let messages: BTreeMap<&str, (usize, &DescriptorProto)> = file
            .message_type
            .iter()
            .enumerate()
            .map(|(at, message)| (message.name(), (at, message)))
            .collect();
        for (at, service) in file.service.iter().enumerate() {
            self.service(service, &[SERVICE, at as i32], &comments, &messages)?;
        }
        Ok(())
    }

    fn service(
        &mut self,
        service: &ServiceDescriptorProto,
        path: &[i32],
        comments: &Comments,
        messages: &BTreeMap<&str, (usize, &DescriptorProto)>,
    ) -> Result<()> {
        let (name, comment) = (service.name(), comments.at(path)?);
        writeln!(self.text, "## {name}\n\n{comment}\n")?;
        for (at, method) in service.method.iter().enumerate() {
            let comment = comments.at(&within(path, MEMBER, at))?;
            writeln!(self.text, "### {}\n\n{comment}\n", method.name())?;
            let streamed = if method.server_streaming() {
                ", a stream of them"
            } else {
                ""
            };
            for (role, more, full) in [
                ("Request", "", method.input_type()),
                ("Response", streamed, method.output_type()),
            ] {
                let name = short(full);
                let (at, message) = messages.get(name).context("it is in the same file")?;
                write!(self.text, "{role} `{name}`{more}")?;
                self.fields(message, &[MESSAGE, *at as i32], comments)?;
                self.shown.insert(name.to_owned());
            }
        }
        Ok(())
    }

    /// What several methods use.
    fn shared(&mut self, file: &FileDescriptorProto) -> Result<()> {
        let comments = Comments::of(file);
        for (at, message) in file.message_type.iter().enumerate() {
            self.message(message, "", &[MESSAGE, at as i32], &comments)?;
        }
        for (at, kinds) in file.enum_type.iter().enumerate() {
            self.kinds(kinds, "", &[ENUM, at as i32], &comments)?;
        }
        Ok(())
    }

    fn message(
        &mut self,
        message: &DescriptorProto,
        outer: &str,
        path: &[i32],
        comments: &Comments,
    ) -> Result<()> {
        let name = format!("{outer}{}", message.name());
        if !self.shown.contains(&name) {
            write!(self.text, "### {name}\n\n{}", comments.at(path)?)?;
            self.fields(message, path, comments)?;
        }
        let outer = format!("{name}.");
        for (at, inner) in message.nested_type.iter().enumerate() {
            self.message(inner, &outer, &within(path, NESTED_MESSAGE, at), comments)?;
        }
        for (at, kinds) in message.enum_type.iter().enumerate() {
            self.kinds(kinds, &outer, &within(path, NESTED_ENUM, at), comments)?;
        }
        Ok(())
    }

    fn fields(
        &mut self,
        message: &DescriptorProto,
        path: &[i32],
        comments: &Comments,
    ) -> Result<()> {
        if message.field.is_empty() {
            self.text.push_str(" (no fields)\n\n");
            return Ok(());
        }
        self.text
            .push_str("\n\n| field | type | what |\n|---|---|---|\n");
        for (at, field) in message.field.iter().enumerate() {
            let (name, kind) = (field.name(), kind(field, message)?);
            let comment = comments.at(&within(path, MEMBER, at))?;
            writeln!(self.text, "| `{name}` | {kind} | {comment} |")?;
        }
        self.text.push('\n');
        Ok(())
    }

    fn kinds(
        &mut self,
        kinds: &EnumDescriptorProto,
        outer: &str,
        path: &[i32],
        comments: &Comments,
    ) -> Result<()> {
        let (name, comment) = (kinds.name(), comments.at(path)?);
        writeln!(self.text, "### {outer}{name}\n\n{comment}\n")?;
        self.text
            .push_str("| value | number | what |\n|---|---|---|\n");
        for (at, value) in kinds.value.iter().enumerate() {
            let comment = comments.at(&within(path, MEMBER, at))?;
            let (name, number) = (value.name(), value.number());
            writeln!(self.text, "| `{name}` | {number} | {comment} |")?;
        }
        self.text.push('\n');
        Ok(())
    }

    fn reasons(&mut self) -> Result<()> {
        self.text
            .push_str("## Reasons\n\n| reason | gRPC code | when |\n|---|---|---|\n");
        for reason in Reason::ALL {
            let (text, code, meaning) = (reason.as_str(), reason.code(), reason.meaning());
            writeln!(self.text, "| `{text}` | `{code:?}` | {meaning} |")?;
        }
        Ok(())
    }
}

/// A field's type as people write it.
fn kind(field: &FieldDescriptorProto, message: &DescriptorProto) -> Result<String> {
    let kind = match field.r#type() {
        Type::Message | Type::Enum => reference(field.type_name()),
        scalar => scalar
            .as_str_name()
            .trim_start_matches("TYPE_")
            .to_lowercase(),
    };
    let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
    let oneof = oneof.map(|at| message.oneof_decl.get(at as usize).map(|o| o.name()));
    Ok(match (field.label(), field.proto3_optional(), oneof) {
        (Label::Repeated, ..) => format!("repeated {kind}"),
        (_, true, _) => format!("optional {kind}"),
        (.., Some(oneof)) => format!("{kind}, one of `{}`", oneof.context("it is declared")?),
        _ => kind,
    })
}

fn reference(full: &str) -> String {
    let name = short(full);
    if full.starts_with(".google.protobuf") {
        format!("`{name}`")
    } else {
        link(name)
    }
}

fn short(full: &str) -> &str {
    let full = full.trim_start_matches('.');
    full.strip_prefix("sightline.v1.").unwrap_or(full)
}

/// A link to a heading of the page.
fn link(name: &str) -> String {
    format!("[{name}](#{})", name.to_lowercase().replace('.', ""))
}
