//! The settings of this node's file and the dynamic configuration as they are now: a reload, or a change in etcd, replaces them for all who hold
//! this.

use crate::wake::Cell;
use settings::{Dynamic, Settings};
use std::sync::Arc;

/// Both; a cheap clone.
#[derive(Clone)]
pub(crate) struct InForce {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Cell<Arc<Settings>>,
    dynamic: Cell<Arc<Dynamic>>,
}

impl InForce {
    pub(crate) fn new(settings: Arc<Settings>, dynamic: Arc<Dynamic>) -> InForce {
        let (settings, dynamic) = (Cell::new(settings), Cell::new(dynamic));
        InForce { inner: Arc::new(Inner { settings, dynamic }) }
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.inner.settings.get()
    }

    pub(crate) fn dynamic(&self) -> Arc<Dynamic> {
        self.inner.dynamic.get()
    }

    pub(crate) fn use_settings(&self, settings: &Arc<Settings>) {
        self.inner.settings.with(|kept| *kept = settings.clone());
    }

    pub(crate) fn use_dynamic(&self, dynamic: &Arc<Dynamic>) {
        self.inner.dynamic.with(|kept| *kept = dynamic.clone());
    }
}
