//! Which of a firing's messages go out at its decision, and which wait for its explanation.

use sightline_bus::{BusError, Subject};
use sightline_proto::v1::DeliveryMode;
use sightline_service::failpoint;

use crate::Shared;
use crate::firing::Firing;
use crate::told::put_in_line;

impl Shared {
    /// Tells the receivers of a firing that opened or closed what they want to hear at once, and puts it where it is explained.
    /// Told again, with the same ids, it changes nothing.
    pub(crate) async fn tell(&self, firing: &Firing<'_>) -> Result<(), BusError> {
        let deliveries = firing.deliveries();
        if deliveries.is_empty() {
            return Ok(());
        }
        let mode = match firing.alert.delivery() {
            DeliveryMode::Unspecified => DeliveryMode::Complete,
            mode => mode,
        };
        if firing.decision.closes {
            if mode == DeliveryMode::All {
                put_in_line(&self.bus, &deliveries).await?;
            }
            return Ok(());
        }
        let explaining = firing.explaining();
        let held = mode == DeliveryMode::Complete && explaining.waits();
        if !held {
            put_in_line(&self.bus, &deliveries).await?;
            failpoint::hit("alerts.after_delivery");
        }
        if held || (mode == DeliveryMode::All && explaining.waits()) {
            let queue = if held { Subject::Hold } else { Subject::Follow };
            let (subject, id) = explaining.place(queue);
            self.bus.publish(&subject, &id, &explaining).await?;
            failpoint::hit("alerts.after_explaining");
        }
        Ok(())
    }
}
