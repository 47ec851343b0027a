//! Which servers and rooms lag, for the page of metrics: the worst of them, so that ten thousand servers are no ten thousand
//! series.

use hearth_delivery::{Delivery, Lag};
use hearth_room::{Backlog, Rooms};

use crate::telemetry::Measure;

/// Servers, and rooms, that are named.
const NAMED: usize = 20;

/// How it stands with the worst of the servers and rooms now.
pub(crate) async fn worst(delivery: &Delivery, rooms: &Rooms) -> Vec<Measure> {
    let (lags, backlogs) = tokio::join!(delivery.slowest(NAMED), rooms.longest_backlogs(NAMED));
    let unread = |error| tracing::warn!(%error, "which servers and rooms lag can't be read");
    let of_servers = of_servers(&lags.map_err(unread).unwrap_or_default());
    let of_rooms = of_rooms(&backlogs.map_err(unread).unwrap_or_default());
    of_servers.into_iter().chain(of_rooms).collect()
}

fn of_servers(lags: &[Lag]) -> [Measure; 3] {
    let measure = |name, help, value: fn(&Lag) -> f64| {
        let values = lags.iter().map(|lag| (lag.server.to_string(), value(lag))).collect();
        Measure { name, help, label: "destination", values }
    };
    [
        measure(
            "hearth_delivery_destination_behind_seconds",
            "How long a server has lacked something; the worst servers only",
            |lag| lag.behind_ms as f64 / 1000.0,
        ),
        measure(
            "hearth_delivery_destination_lacking_events",
            "Events that a server lacks, as far as they are counted; the worst servers only",
            |lag| lag.events as f64,
        ),
        measure(
            "hearth_delivery_destination_failures",
            "Failures of a server in a row; the worst servers only",
            |lag| lag.failures as f64,
        ),
    ]
}

fn of_rooms(backlogs: &[Backlog]) -> [Measure; 2] {
    let measure = |name, help, value: fn(&Backlog) -> f64| {
        let values = backlogs.iter().map(|backlog| (backlog.room_id.to_string(), value(backlog))).collect();
        Measure { name, help, label: "room", values }
    };
    [
        measure(
            "hearth_room_staged_events",
            "Events of other servers that wait in a room to be judged; the worst rooms only",
            |backlog| backlog.events as f64,
        ),
        measure(
            "hearth_room_staged_oldest_seconds",
            "How long the first of them has waited; the worst rooms only",
            |backlog| backlog.oldest_ms as f64 / 1000.0,
        ),
    ]
}
