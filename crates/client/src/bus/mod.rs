//! The service bus: call other services, answer them, and hear what they ask (service bus protocol).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use daybook_client::bus::{Bus, BusKey, Call, Subscribe};
//!
//! let bus = Bus::builder("http://127.0.0.1:9001".parse()?, "meter", BusKey::new("the key"))
//!     .connect()
//!     .await?;
//!
//! let mut work = bus.subscribe("grid.read", Subscribe::queue("workers")).await?;
//! tokio::spawn(async move {
//!     while let Some(request) = work.next().await {
//!         request.answer(&serde_json::json!({"kw": 41.5})).await;
//!     }
//! });
//!
//! let answer = bus.call("grid.read", &serde_json::json!({"zone": "north"}), Call::default()).await?;
//! println!("{answer}");
//! # Ok(())
//! # }
//! ```
//!
//! A lost connection is made again by itself: the instance keeps its id if it is back in time,
//! subscriptions are made again, and calls that wait are sent again under their request id, which
//! has at most one effect.

mod connection;
mod message;

use crate::{Client, Error};
pub use connection::{Bus, BusBuilder, Incoming, Messages};

/// The services that are online, as `GET /services` of the bus at the client's address tells them
/// (section 9).
///
/// # Errors
/// As for every question to a node.
pub async fn services(client: &Client) -> Result<serde_json::Value, Error> {
    client.http.get("/services").await
}

pub use message::{BusError, BusKey, Call, Delivery, Reply, ServiceError, Subscribe};
