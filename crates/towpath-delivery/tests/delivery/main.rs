//! Delivery without a cluster, an engine, a registry, git or a network.

#![allow(clippy::unwrap_used, clippy::panic)]

mod environments;
mod gates;
mod going_back;
mod hooks;
mod images;
mod layouts;
mod locks;
mod plans;
mod power;
mod protected;
mod releases;
mod runs;
mod secrets;
mod several_images;
mod world;
