//! Faults, and what must not come of them. `docs/faults.md` lists all that is survived, each with the test that shows it, here or
//! elsewhere; stories of minutes are in [`long`], for `make test-faults`.

mod abuse;
mod clock;
mod draining;
pub mod fleet;
mod growing;
mod killed;
pub mod kills;
mod long;
pub mod outages;
mod table;
mod upgrade;
