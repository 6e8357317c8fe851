//! The virtual addresses of this member: its right to them is its right to write.
//!
//! ```text
//!   announced as writable ──granted──► right to the primary's addresses until the lease's deadline
//!   about to stop, or to give the lead away ──► right gone, and only when the addresses are gone the action itself
//! ```

use crate::keeper::Keeper;
use crate::wake::Cell;
use etcd::Snapshot;
use settings::{Settings, VirtualAddress};
use std::sync::Arc;
use std::time::Duration;
use types::{NodeName, Term};
use vip::{Held, Holder, Right, Rights, Role, Wanted};

/// The kernel takes an address off in a millisecond; nothing that saves data may wait longer for it.
const AT_MOST: Duration = Duration::from_millis(200);

/// The addresses, and the word on which they are held. A cheap clone.
#[derive(Clone)]
pub(crate) struct Addresses {
    inner: Arc<Inner>,
}

struct Inner {
    holder: Option<Holder>,
    word: Arc<Word>,
}

/// What the right to them rests on.
struct Word {
    keeper: Keeper,
    said: Cell<Said>,
}

#[derive(Clone, Copy, Default)]
struct Said {
    /// The term in which this member was announced as writable.
    writable: Option<Term>,
    /// The term in which that was taken back: an older look at etcd does not bring it back.
    withdrawn: Option<Term>,
}

impl Rights for Word {
    fn right(&self, role: Role) -> Option<Right> {
        let lease = self.keeper.lease();
        let (term, until) = (lease.term?, lease.deadline?);
        match role {
            Role::Primary => (self.said.get().writable == Some(term)).then_some(Right { term, until }),
            Role::Replica | Role::Sync | Role::Any => None,
        }
    }
}

impl Addresses {
    /// Begins to hold what the settings name.
    pub(crate) fn start(settings: &Settings, keeper: Keeper) -> Result<Addresses, crate::Error> {
        let wanted: Result<Vec<Wanted>, vip::Unusable> = settings.vip.iter().map(wanted).collect();
        let wanted = wanted.map_err(|why| crate::Error::VirtualAddress(why.to_string()))?;
        let word = Arc::new(Word { keeper, said: Cell::new(Said::default()) });
        let holder = match wanted.is_empty() {
            true => None,
            false => {
                let holder = Holder::start(wanted, word.clone());
                Some(holder.map_err(|error| crate::Error::VirtualAddress(error.to_string()))?)
            }
        };
        Ok(Addresses { inner: Arc::new(Inner { holder, word }) })
    }

    /// This member was announced as writable in this term.
    pub(crate) fn announced(&self, term: Term) {
        self.inner.word.said.with(|said| *said = Said { writable: Some(term), withdrawn: None });
        self.poke();
    }

    /// What etcd says of it, for an agent that was restarted and did not announce it itself.
    pub(crate) fn learn(&self, snapshot: &Snapshot, me: &NodeName) {
        let Some(writable) = snapshot.writable.as_ref().filter(|writable| writable.name == *me) else {
            return;
        };
        let news = self.inner.word.said.with(|said| {
            let news = said.writable != Some(writable.term) && said.withdrawn != Some(writable.term);
            if news {
                said.writable = Some(writable.term);
            }
            news
        });
        if news {
            self.poke();
        }
    }

    /// Gives them up and waits until they are gone. Those that cannot be removed in time go with their lifetime.
    pub(crate) async fn give_up(&self) {
        let had = self.inner.word.said.with(|said| {
            let had = said.writable.take();
            said.withdrawn = had.or(said.withdrawn);
            had
        });
        let Some(holder) = self.inner.holder.as_ref().filter(|_| had.is_some()) else { return };
        if !holder.gone(Role::Primary, AT_MOST).await {
            tracing::error!(
                "failed to remove a virtual address in time; it goes with its lifetime, before the lease ends"
            );
        }
    }

    /// The addresses as they are.
    pub(crate) fn held(&self) -> Vec<Held> {
        self.inner.holder.as_ref().map(Holder::held).unwrap_or_default()
    }

    fn poke(&self) {
        if let Some(holder) = &self.inner.holder {
            holder.poke();
        }
    }
}

fn wanted(address: &VirtualAddress) -> Result<Wanted, vip::Unusable> {
    Wanted::new(address.ip, address.prefix_len, &address.interface, Role::of(&address.role)?)
}
