//! What people asked this agent to do, in the order in which they asked.

use crate::wake::{Cell, Wake};
use ha::Order;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::oneshot;

/// So many orders may wait.
const WAITING: usize = 4;

/// How an order ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ended {
    pub done: bool,
    pub text: String,
}

/// An order, and who hears how it ended.
type Waiting = (Order, Option<oneshot::Sender<Ended>>);

/// The queue; a cheap clone.
#[derive(Clone)]
pub(crate) struct Orders {
    wake: Wake,
    queue: Arc<Cell<VecDeque<Waiting>>>,
}

impl Orders {
    pub(crate) fn new(wake: Wake) -> Orders {
        Orders { wake, queue: Arc::new(Cell::new(VecDeque::new())) }
    }

    /// The order to be carried out now.
    pub(crate) fn head(&self) -> Option<Order> {
        self.queue.with(|queue| queue.front().map(|(order, _)| order.clone()))
    }

    /// Puts an order into the queue. The receiver hears how it ended; an error names the order in the way.
    pub(crate) fn give(&self, order: Order) -> Result<oneshot::Receiver<Ended>, Order> {
        let (sender, receiver) = oneshot::channel();
        self.queue.with(|queue| {
            let same = queue.iter().find(|(waiting, _)| *waiting == order);
            match same.or(queue.front().filter(|_| queue.len() >= WAITING)) {
                Some((waiting, _)) => Err(waiting.clone()),
                None => {
                    queue.push_back((order, Some(sender)));
                    Ok(())
                }
            }
        })?;
        self.wake.wake();
        Ok(receiver)
    }

    /// Has the data directory made anew, whatever copy was ordered before.
    pub(crate) fn reinitialize(&self, from_leader: bool) -> Result<oneshot::Receiver<Ended>, Order> {
        self.queue.with(|queue| {
            queue.retain(|(waiting, _)| !matches!(waiting, Order::Reinitialize { .. }));
        });
        self.give(Order::Reinitialize { from_leader })
    }

    /// The agent is to end: nothing else is done any more.
    pub(crate) fn shut_down(&self) {
        self.queue.with(|queue| {
            if queue.front().map(|(order, _)| order) != Some(&Order::Shutdown) {
                queue.clear();
                queue.push_back((Order::Shutdown, None));
            }
        });
        self.wake.wake();
    }

    /// This order, at the head of the queue, has ended; another one may have taken its place meanwhile.
    pub(crate) fn finish(&self, order: Option<&Order>, done: bool, text: &str) {
        let is_head = |queue: &VecDeque<Waiting>| queue.front().map(|(head, _)| head) == order;
        let ended = self.queue.with(|queue| if is_head(queue) { queue.pop_front() } else { None });
        if let Some((_, Some(sender))) = ended {
            let _ = sender.send(Ended { done, text: text.to_owned() });
        }
        self.wake.wake();
    }
}
