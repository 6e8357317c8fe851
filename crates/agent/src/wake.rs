//! What wakes the loop. Events carry nothing: each turn looks at everything, so an event that comes twice or late costs time only.

use std::sync::Arc;
use tokio::sync::Notify;

/// Wakes the loop; a cheap clone.
#[derive(Clone, Default)]
pub(crate) struct Wake(Arc<Notify>);

impl Wake {
    /// Something has changed.
    pub(crate) fn wake(&self) {
        self.0.notify_one();
    }

    /// Waits until something has changed since the last time.
    pub(crate) async fn changed(&self) {
        self.0.notified().await;
    }
}

/// A value that several tasks read and one writes. Never held across an await.
pub(crate) struct Cell<T>(std::sync::Mutex<T>);

impl<T> Cell<T> {
    pub(crate) fn new(value: T) -> Cell<T> {
        Cell(std::sync::Mutex::new(value))
    }

    /// Looks at or changes the value.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl<T: Clone> Cell<T> {
    pub(crate) fn get(&self) -> T {
        self.with(|value| value.clone())
    }
}
