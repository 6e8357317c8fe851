//! The time in an order for later: what is wrong with it, in Patroni's codes and words.

use super::reply::{self, Reply};
use etcd::{NoSchedule, Schedule};
use hyper::StatusCode;
use serde_json::Value;

/// Reads the time for which `what` (a switchover, a restart) is ordered.
pub(super) fn read(when: &Value, what: &str, pause: bool) -> Result<Schedule, Box<Reply>> {
    if pause {
        // The one is an error of the caller's, the other is not: that is how they were always told apart.
        let status = match what {
            "restart" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        return Err(Box::new(reply::text(status, format!("Can't schedule {what} in the paused state"))));
    }
    let schedule = Schedule::read(when.as_str().unwrap_or_default()).map_err(|why| match why {
        NoSchedule::NoZone => {
            let text = format!("Timezone information is mandatory for the scheduled {what}");
            Box::new(reply::text(StatusCode::BAD_REQUEST, text))
        }
        NoSchedule::Unreadable => {
            let text =
                "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601";
            Box::new(reply::text(StatusCode::UNPROCESSABLE_ENTITY, text))
        }
    })?;
    if schedule.at().is_none_or(|at| at <= clock::wall()) {
        let text = format!("Cannot schedule {what} in the past");
        return Err(Box::new(reply::text(StatusCode::UNPROCESSABLE_ENTITY, text)));
    }
    Ok(schedule)
}
