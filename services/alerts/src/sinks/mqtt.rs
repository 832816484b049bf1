//! Firings on a topic of an MQTT broker.

use std::time::Duration;

use rumqttc::{AsyncClient, EventLoop, MqttOptions, PublishOptions, QoS, Transport};
use sightline_proto::internal::Delivery;
use tokio::time::timeout;
use uuid::Uuid;

use super::Cause;
use super::address::Address;

const PORT: u16 = 1883;
const ENCRYPTED_PORT: u16 = 8883;
/// The largest message that is sent, in bytes; none that comes in is expected.
const LARGEST: usize = 1 << 20;
/// How long saying goodbye may take; it changes nothing any more.
const LEAVING: Duration = Duration::from_secs(1);

/// A topic of a broker.
#[derive(Clone)]
pub(super) struct Topic(Address);

impl Topic {
    pub(super) fn new(address: Address) -> Result<Self, String> {
        address.password()?;
        if address.path.is_empty() {
            return Err(
                "write the topic behind the address, for example mqtt://HOST/alerts".to_owned(),
            );
        }
        if address.path.contains(['+', '#', '\0']) || address.path.starts_with('$') {
            return Err(
                "a topic to publish to has no wildcards and does not begin with $".to_owned(),
            );
        }
        Ok(Self(address))
    }

    /// Returns once the broker has said that it has it (QoS 1).
    pub(super) async fn send(&self, delivery: &Delivery) -> Result<(), Cause> {
        let (client, mut events) = AsyncClient::builder(self.options()?).capacity(2).build();
        let options = PublishOptions::new(QoS::AtLeastOnce);
        let topic = self.0.path.clone();
        let sent = client.publish_tracked(topic, delivery.body.clone(), options);
        let taken = sent.await?.wait_completion_async();
        tokio::select! {
            taken = taken => taken?,
            error = fail(&mut events) => return Err(error),
        }
        let leaving = async {
            client.disconnect().await.ok();
            fail(&mut events).await
        };
        let _ = timeout(LEAVING, leaving).await;
        Ok(())
    }

    fn options(&self) -> Result<MqttOptions, Cause> {
        let Address {
            host,
            port,
            encrypted,
            user,
            ..
        } = &self.0;
        let usual = if *encrypted { ENCRYPTED_PORT } else { PORT };
        let mut options = MqttOptions::new(
            format!("sightline-{}", Uuid::new_v4().simple()),
            (host.as_str(), port.unwrap_or(usual)),
        );
        options.set_max_packet_size(LARGEST, LARGEST);
        if *encrypted {
            options.set_transport(Transport::try_tls_with_default_config()?);
        }
        if let Some(password) = self.0.password()? {
            options.set_credentials(user.clone(), password.to_owned());
        }
        Ok(options)
    }
}

/// Moves the connection on until it ends.
async fn fail(events: &mut EventLoop) -> Cause {
    loop {
        if let Err(error) = events.poll().await {
            return error.into();
        }
    }
}
