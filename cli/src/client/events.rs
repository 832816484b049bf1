//! `sightline event` and `sightline alert`.

use anyhow::Result;
use sightline_proto::client::Client;
use sightline_proto::v1;

use super::args::{AlertCommand, AlertOptions, EventCommand, Limit};
use super::call::{answer, ask, given};
use super::moment::Moment;
use super::output::{Output, line};
use super::{backtest, latency, policy};

/// The longest label that the API takes, in characters.
const LABEL: usize = 100;

/// Does what was said with events.
///
/// # Errors
/// When the server refuses.
pub async fn run(mut client: Client, command: EventCommand, out: &Output) -> Result<()> {
    match command {
        EventCommand::Create { prompt, label } => {
            let label = label.unwrap_or_else(|| prompt.chars().take(LABEL).collect());
            let request = v1::CreateEventRequest {
                prompt,
                label,
                ..Default::default()
            };
            let call = client.events.create_event(ask(request));
            out.one(&given(answer(call).await?.event)?)
        }
        EventCommand::List { limit } => {
            out.pages(limit, async |page_size, page_token| {
                let request = v1::ListEventsRequest {
                    page_size,
                    page_token,
                };
                let page = answer(client.events.list_events(ask(request))).await?;
                Ok((page.events, page.next_page_token))
            })
            .await
        }
        EventCommand::Update {
            event: event_id,
            prompt,
            label,
        } => {
            let request = v1::UpdateEventRequest {
                event_id,
                prompt,
                label,
            };
            let call = client.events.update_event(ask(request));
            out.one(&given(answer(call).await?.event)?)
        }
        EventCommand::Delete { event } => {
            let request = v1::DeleteEventRequest {
                event_id: event.clone(),
            };
            answer(client.events.delete_event(ask(request))).await?;
            out.done("deleted", &event)
        }
        EventCommand::Backtest(args) => backtest::run(client, args, out).await,
    }
}

/// Does what was said with alerts.
///
/// # Errors
/// When the server refuses.
pub async fn alerts(client: Client, command: AlertCommand, out: &Output) -> Result<()> {
    match command {
        AlertCommand::List {
            stream,
            index,
            event,
            limit,
        } => {
            let request = v1::ListAlertsRequest {
                rtstream_id: stream.unwrap_or_default(),
                index_id: index.unwrap_or_default(),
                event_id: event.unwrap_or_default(),
                ..Default::default()
            };
            list(client, request, limit, out).await
        }
        AlertCommand::Latency(args) => latency::run(client, args, out).await,
        AlertCommand::Firings { alert, limit } => firings(client, alert, limit, out).await,
        AlertCommand::Deliveries { alert, limit } => deliveries(client, alert, limit, out).await,
        AlertCommand::Redeliver {
            alert,
            firing,
            from,
            to,
        } => {
            let time = |moment: Moment| moment.timestamp(out.view.now_us);
            let request = v1::RedeliverRequest {
                alert_id: alert,
                firing_id: firing.unwrap_or_default(),
                start_time: from.map(time),
                end_time: to.map(time),
            };
            redeliver(client, request, out).await
        }
        other => change(client, other, out).await,
    }
}

async fn change(mut client: Client, command: AlertCommand, out: &Output) -> Result<()> {
    let alert = match command {
        AlertCommand::Create {
            event: event_id,
            index,
            stream,
            callback_url,
            threshold,
            options,
        } => {
            let told = policy::told(&options, v1::Alert::default(), out.view.now_us)?;
            let request = v1::CreateAlertRequest {
                event_id,
                index_id: index.unwrap_or_default(),
                rtstream_id: stream.unwrap_or_default(),
                callback_url: callback_url.unwrap_or_default(),
                threshold,
                request_id: String::new(),
                policy: told.policy,
                severity: told.severity,
                delivery: told.delivery,
                mute_time: told.mute_time,
                sinks: told.sinks,
                template: told.template,
            };
            answer(client.events.create_alert(ask(request)))
                .await?
                .alert
        }
        AlertCommand::Update {
            alert,
            callback_url,
            threshold,
            options,
        } => {
            let request = update(&mut client, alert, &options, out).await?;
            let request = v1::UpdateAlertRequest {
                callback_url,
                threshold,
                ..request
            };
            answer(client.events.update_alert(ask(request)))
                .await?
                .alert
        }
        AlertCommand::Enable { alert: alert_id } => {
            let request = v1::EnableAlertRequest { alert_id };
            answer(client.events.enable_alert(ask(request)))
                .await?
                .alert
        }
        AlertCommand::Disable { alert: alert_id } => {
            let request = v1::DisableAlertRequest { alert_id };
            answer(client.events.disable_alert(ask(request)))
                .await?
                .alert
        }
        AlertCommand::Delete { alert } => {
            let request = v1::DeleteAlertRequest {
                alert_id: alert.clone(),
            };
            answer(client.events.delete_alert(ask(request))).await?;
            return out.done("deleted", &alert);
        }
        AlertCommand::List { .. }
        | AlertCommand::Firings { .. }
        | AlertCommand::Redeliver { .. }
        | AlertCommand::Latency(_)
        | AlertCommand::Deliveries { .. } => None,
    };
    out.one(&given(alert)?)
}

/// What the options change. The API takes a policy as a whole, so that what is not given is taken from the alert.
async fn update(
    client: &mut Client,
    alert_id: String,
    options: &AlertOptions,
    out: &Output,
) -> Result<v1::UpdateAlertRequest> {
    let request = v1::GetAlertRequest {
        alert_id: alert_id.clone(),
    };
    let before = answer(client.events.get_alert(ask(request))).await?.alert;
    let told = policy::told(options, given(before)?, out.view.now_us)?;
    Ok(v1::UpdateAlertRequest {
        alert_id,
        policy: told.policy.filter(|_| options.has_policy()),
        severity: options.severity.map(|_| told.severity),
        delivery: options.delivery.map(|_| told.delivery),
        mute_time: told.mute_time.filter(|_| options.mute_until.is_some()),
        set_sinks: !options.sinks.is_empty(),
        sinks: options.sinks.clone(),
        template: options.template.as_ref().map(|_| told.template),
        ..v1::UpdateAlertRequest::default()
    })
}

async fn list(
    mut client: Client,
    request: v1::ListAlertsRequest,
    limit: Limit,
    out: &Output,
) -> Result<()> {
    out.pages(limit, async |page_size, page_token| {
        let request = v1::ListAlertsRequest {
            page_size,
            page_token,
            ..request.clone()
        };
        let page = answer(client.events.list_alerts(ask(request))).await?;
        Ok((page.alerts, page.next_page_token))
    })
    .await
}

async fn firings(mut client: Client, alert: String, limit: Limit, out: &Output) -> Result<()> {
    out.pages(limit, async |page_size, page_token| {
        let request = v1::ListFiringsRequest {
            alert_id: alert.clone(),
            page_size,
            page_token,
        };
        let page = answer(client.events.list_firings(ask(request))).await?;
        Ok((page.firings, page.next_page_token))
    })
    .await
}

async fn deliveries(mut client: Client, alert: String, limit: Limit, out: &Output) -> Result<()> {
    out.pages(limit, async |page_size, page_token| {
        let request = v1::ListDeliveriesRequest {
            alert_id: alert.clone(),
            page_size,
            page_token,
        };
        let page = answer(client.events.list_deliveries(ask(request))).await?;
        Ok((page.deliveries, page.next_page_token))
    })
    .await
}

async fn redeliver(mut client: Client, request: v1::RedeliverRequest, out: &Output) -> Result<()> {
    let answered = answer(client.events.redeliver(ask(request))).await?;
    if out.json {
        return out.line(&line(&answered)?);
    }
    out.line(&format!(
        "{} firings are delivered once more",
        answered.count
    ))
}
