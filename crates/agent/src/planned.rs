//! The restart of PostgreSQL that is planned for a time: kept here, shown in the member key, carried out by the loop.
//!
//! ```text
//!   POST /restart {schedule} ─► planned ─► member key, GET /patroni, GET /cluster
//!   DELETE /restart, PostgreSQL started since, too late, conditions do not hold ─► gone
//!   its time ─► an order like any other
//! ```
//! An agent that is started again finds it in the member key that it left behind.

use crate::conditions::{Conditions, Present};
use crate::wake::{Cell, Wake};
use etcd::Schedule;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use types::Moment;

/// In the member key: which PostgreSQL it was planned for.
const STARTED: &str = "postmaster_start_time";

/// One restart to come.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    schedule: Schedule,
    conditions: Conditions,
    /// When the PostgreSQL was started that is to be restarted.
    started: Option<String>,
    /// As it is shown: the time, then the conditions as they were asked for.
    shown: Map<String, Value>,
}

impl Plan {
    /// From the body of a request, for the PostgreSQL that was started at `started`.
    pub(crate) fn new(
        schedule: Schedule,
        conditions: Conditions,
        body: &Map<String, Value>,
        started: Option<String>,
    ) -> Plan {
        let mut shown = body.clone();
        shown.insert("schedule".to_owned(), Value::from(schedule.iso()));
        Plan { schedule, conditions, started, shown }
    }

    /// From the member key that this agent's last life left behind.
    fn left_behind(record: &Map<String, Value>) -> Option<Plan> {
        let schedule = Schedule::read(record.get("schedule")?.as_str()?).ok()?;
        let mut shown = record.clone();
        let started = shown.remove(STARTED).and_then(|text| text.as_str().map(str::to_owned));
        let conditions = Conditions::read(&shown).ok()?;
        Some(Plan { schedule, conditions, started, shown })
    }

    /// How long PostgreSQL may take to come up.
    pub(crate) fn within(&self) -> Option<Duration> {
        self.conditions.within
    }
}

/// The planned restart, if there is one; a cheap clone.
#[derive(Clone)]
pub(crate) struct Planned {
    wake: Wake,
    plan: Arc<Cell<Option<Plan>>>,
}

impl Planned {
    pub(crate) fn new(wake: Wake) -> Planned {
        Planned { wake, plan: Arc::new(Cell::new(None)) }
    }

    /// Plans it, unless one is planned already.
    pub(crate) fn put(&self, plan: Plan) -> bool {
        let put = self.plan.with(|kept| {
            let free = kept.is_none();
            kept.get_or_insert(plan);
            free
        });
        self.wake.wake();
        put
    }

    /// Takes it up from the own member key.
    pub(crate) fn take_up(&self, record: Option<&Map<String, Value>>) {
        if let Some(plan) = record.and_then(Plan::left_behind) {
            tracing::info!(at = plan.schedule.iso(), "took up the scheduled restart of the agent before");
            self.put(plan);
        }
    }

    /// Forgets it; what it was.
    pub(crate) fn take(&self) -> Option<Plan> {
        let plan = self.plan.with(Option::take);
        self.wake.wake();
        plan
    }

    /// As in the member key.
    pub(crate) fn published(&self) -> Option<Map<String, Value>> {
        let plan = self.plan.get()?;
        let mut shown = plan.shown;
        if let Some(started) = plan.started {
            shown.insert(STARTED.to_owned(), Value::from(started));
        }
        Some(shown)
    }

    /// As `GET /patroni` shows it.
    pub(crate) fn shown(&self) -> Option<Map<String, Value>> {
        self.plan.get().map(|plan| plan.shown)
    }

    /// For a decision. `started` is when the PostgreSQL that runs was.
    pub(crate) fn observe(&self, started: Option<&str>, present: &Present) -> Option<ha::PlannedRestart> {
        let plan = self.plan.get()?;
        let overtaken = plan.started.as_deref().zip(started).is_some_and(|(then, now)| then != now);
        Some(ha::PlannedRestart {
            at: moment(&plan.schedule),
            overtaken,
            unmet: plan.conditions.unmet(present),
            within: plan.within(),
        })
    }
}

/// A time on the wall clock as a moment, by what the two clocks say now.
pub(crate) fn moment(schedule: &Schedule) -> Moment {
    let (now, wall) = (clock::now(), clock::wall());
    let Some(at) = schedule.at() else { return now.after(Duration::MAX) };
    match at.duration_since(wall) {
        Ok(ahead) => now.after(ahead),
        Err(ago) => now.before(ago.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, Planned};
    use crate::conditions::{Conditions, Present};
    use crate::wake::Wake;
    use etcd::Schedule;
    use serde_json::json;

    fn plan(started: &str) -> Plan {
        let body = json!({ "role": "replica", "schedule": "2030-01-02T03:04:05.5Z" });
        let body = body.as_object().unwrap();
        let schedule = Schedule::read(body["schedule"].as_str().unwrap()).unwrap();
        Plan::new(schedule, Conditions::read(body).unwrap(), body, Some(started.to_owned()))
    }

    #[test]
    fn there_is_one_at_a_time_and_it_survives_in_the_member_key() {
        let planned = Planned::new(Wake::default());
        assert!(planned.put(plan("then")));
        assert!(!planned.put(plan("then")), "there is one");
        let published = planned.published().unwrap();
        assert_eq!(published["schedule"], "2030-01-02T03:04:05.500000+00:00");
        assert_eq!(published["postmaster_start_time"], "then");
        assert!(planned.shown().unwrap().get("postmaster_start_time").is_none());
        let later = Planned::new(Wake::default());
        later.take_up(Some(&published));
        assert_eq!(later.published(), Some(published));
        assert!(later.take().is_some() && later.take().is_none());
        later.take_up(json!({ "schedule": "nonsense" }).as_object());
        assert!(later.take().is_none());
    }

    #[test]
    fn a_postgresql_started_since_overtakes_it() {
        let planned = Planned::new(Wake::default());
        planned.put(plan("then"));
        let present = Present { role: "primary", version: None, pending: false };
        let seen = |started| planned.observe(started, &present).unwrap();
        assert!(!seen(Some("then")).overtaken && seen(Some("since")).overtaken && !seen(None).overtaken);
        assert!(seen(None).unmet.is_some(), "it was asked for on a replica");
        assert!(seen(None).at > clock::now());
    }
}
