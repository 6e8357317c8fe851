//! Between the program and the queue: what is to be logged becomes a line here, on the thread that says it.

use super::levels::Levels;
use super::line;
use super::queue::Queue;
use super::record::Record;
use serde_json::{Map, Value};
use settings::LogFormat;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::Context;

/// What is logged, and how a line looks.
#[derive(Debug)]
pub(super) struct Plan {
    pub levels: Levels,
    pub json: bool,
    pub format: LogFormat,
    pub dateformat: Option<String>,
    pub static_fields: Map<String, Value>,
}

pub(super) struct Layer {
    pub plan: Arc<RwLock<Arc<Plan>>>,
    pub queue: Arc<Queue>,
    pub began: SystemTime,
}

impl Layer {
    fn plan(&self) -> Arc<Plan> {
        self.plan.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<S: Subscriber> tracing_subscriber::Layer<S> for Layer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Asked again after every change of the plan.
        if self.plan().levels.admit(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.plan().levels.admit(metadata)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let record = Record::of(event, clock::wall(), self.began);
        self.queue.put(line::render(&record, &self.plan()));
    }
}
