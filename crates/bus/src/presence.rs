//! Who comes and who goes (service bus, section 14).

use serde_json::json;

use crate::{
    bus::{Bus, InstanceNo},
    message::quoted,
    packet::packet_text,
};

/// The subscription that presence events need.
pub(crate) const PRESENCE: &str = "_service.>";

impl Bus {
    pub(crate) fn announce(&mut self, no: InstanceNo, event: &str) {
        if self.presence.is_empty() {
            return;
        }
        let Some(instance) = self.instances.get(&no) else {
            return;
        };
        let body = json!({"id": &*instance.id, "name": &*instance.name}).to_string();
        let frame = packet_text(&quoted(event), Some(&body));
        let listeners: Vec<InstanceNo> = self.presence.iter().copied().collect();
        for listener in listeners.into_iter().filter(|listener| *listener != no) {
            self.send_to(listener, frame.clone());
        }
    }
}
