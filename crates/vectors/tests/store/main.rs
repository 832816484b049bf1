//! What every store must do (`conformance`, on Edge always and on a Qdrant server when `QDRANT_URL` names one), and what
//! belongs to a folder on this machine alone (`folder`, `killed`).

mod cases;
mod conformance;
mod folder;
mod killed;
mod owned;
mod places;
mod support;
