//! Real clusters on one machine: the demo, the bench and the stories run on it.
