//! `sightline endpoint`.

use anyhow::Result;
use sightline_proto::client::Client;
use sightline_proto::v1;

use super::args::EndpointCommand;
use super::call::{answer, ask, given};
use super::output::{Output, line};

/// Does what was said with the receivers of webhooks.
///
/// # Errors
/// When the server refuses.
pub async fn run(mut client: Client, command: EndpointCommand, out: &Output) -> Result<()> {
    match command {
        EndpointCommand::List { limit } => {
            out.pages(limit, async |page_size, page_token| {
                let request = v1::ListEndpointsRequest {
                    page_size,
                    page_token,
                };
                let page = answer(client.endpoints.list_endpoints(ask(request))).await?;
                Ok((page.endpoints, page.next_page_token))
            })
            .await
        }
        EndpointCommand::Secret { endpoint } => {
            let request = v1::GetEndpointSecretRequest {
                endpoint_id: endpoint,
            };
            let found = answer(client.endpoints.get_endpoint_secret(ask(request))).await?;
            say(out, &found, &found.secret)
        }
        EndpointCommand::Rotate { endpoint } => {
            let request = v1::RotateEndpointSecretRequest {
                endpoint_id: endpoint,
            };
            let rotated = answer(client.endpoints.rotate_endpoint_secret(ask(request))).await?;
            let until = out.view.time(rotated.old_expire_time.as_ref());
            let words = format!(
                "{}\nThe old secret signs too until {until}.",
                rotated.secret
            );
            say(out, &rotated, &words)
        }
        EndpointCommand::Test { endpoint } => {
            let request = v1::TestEndpointRequest {
                endpoint_id: endpoint,
            };
            let tested = answer(client.endpoints.test_endpoint(ask(request))).await?;
            let words = if tested.error.is_empty() {
                format!("taken with status {}", tested.status_code)
            } else {
                tested.error.clone()
            };
            say(
                out,
                &tested,
                &format!("{words}, after {:.0} ms", tested.duration_ms),
            )
        }
        EndpointCommand::Enable { endpoint } => {
            let request = v1::EnableEndpointRequest {
                endpoint_id: endpoint,
            };
            let call = client.endpoints.enable_endpoint(ask(request));
            out.one(&given(answer(call).await?.endpoint)?)
        }
    }
}

/// The answer for programs, or words for people.
fn say(out: &Output, answered: &impl prost::Name, words: &str) -> Result<()> {
    if out.json {
        return out.line(&line(answered)?);
    }
    out.line(words)
}
