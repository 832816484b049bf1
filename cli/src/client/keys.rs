//! `sightline keys`.

use anyhow::Result;
use sightline_proto::client::Client;
use sightline_proto::v1;

use super::args::KeysCommand;
use super::call::{answer, ask, given};
use super::output::{Output, line};

/// Does what was said with keys.
///
/// # Errors
/// When the server refuses.
pub async fn run(mut client: Client, command: KeysCommand, out: &Output) -> Result<()> {
    match command {
        KeysCommand::Create {
            name,
            tenant,
            operator,
        } => {
            let request = v1::CreateKeyRequest {
                name,
                tenant: tenant.unwrap_or_default(),
                operator,
            };
            let made = answer(client.keys.create_key(ask(request))).await?;
            if out.json {
                return out.line(&line(&made)?);
            }
            out.line(&format!("The secret, shown this once: {}\n", made.secret))?;
            out.one(&given(made.key)?)
        }
        KeysCommand::List { limit } => {
            out.pages(limit, async |page_size, page_token| {
                let request = v1::ListKeysRequest {
                    page_size,
                    page_token,
                };
                let page = answer(client.keys.list_keys(ask(request))).await?;
                Ok((page.keys, page.next_page_token))
            })
            .await
        }
        KeysCommand::Revoke { key_id } => {
            let request = v1::RevokeKeyRequest {
                key_id: key_id.clone(),
            };
            answer(client.keys.revoke_key(ask(request))).await?;
            out.done("revoked", &key_id)
        }
    }
}
