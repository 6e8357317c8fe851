//! What happens to a cluster while an order is carried out, one line a step, on standard error.

use crate::context::Context;
use crate::failure::Failure;
use crate::view::Cluster;
use std::time::Duration;
use types::Moment;

/// The pause between two looks at etcd.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the cluster may take to find a new leader.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tells the steps until `order` is answered.
pub(crate) async fn during<T>(context: &Context, before: &Cluster, order: impl Future<Output = T>) -> T {
    let mut teller = Teller::new(before);
    let tell = async {
        loop {
            // An etcd that is out of reach for a moment only delays the telling.
            if let Ok((_, now)) = context.read(&before.name).await {
                teller.tell(&now);
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let answer = tokio::select! {
        answer = order => answer,
        never = tell => never,
    };
    // The last steps may have happened just before the answer.
    if let Ok((_, now)) = context.read(&before.name).await {
        teller.tell(&now);
    }
    answer
}

/// Waits until somebody else than before leads; none when that does not happen in time.
pub(crate) async fn until_led_anew(context: &Context, before: &Cluster) -> Result<Option<String>, Failure> {
    let mut teller = Teller::new(before);
    let old = before.lead.as_ref().map(|lead| lead.term);
    let end = clock::now().after(PATIENCE);
    while clock::now() < end {
        let (_, now) = context.read(&before.name).await?;
        teller.tell(&now);
        if let Some(lead) = now.lead.as_ref().filter(|lead| Some(lead.term) != old) {
            return Ok(Some(lead.name.clone()));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(None)
}

/// Remembers what was told.
struct Teller {
    last: Cluster,
    start: Moment,
}

impl Teller {
    fn new(before: &Cluster) -> Teller {
        Teller { last: before.clone(), start: clock::now() }
    }

    #[expect(clippy::print_stderr, reason = "progress is told beside the output")]
    fn tell(&mut self, now: &Cluster) {
        for step in steps(&self.last, now) {
            eprintln!("  {:>6.2} s  {step}", clock::now().since(self.start).as_secs_f64());
        }
        self.last = now.clone();
    }
}

/// What has changed between two looks, as sentences.
fn steps(before: &Cluster, now: &Cluster) -> Vec<String> {
    let mut steps = Vec::new();
    if before.lead != now.lead {
        steps.push(match (&before.lead, &now.lead) {
            (Some(old), None) => format!("{} has given the lead back (term {} is over)", old.name, old.term),
            (_, Some(new)) => format!("{} holds the lead (term {})", new.name, new.term),
            (None, None) => String::new(),
        });
    }
    if before.writable != now.writable {
        steps.push(match (&before.writable, &now.writable) {
            (Some(old), None) => format!("{} accepts no writes any more", old.name),
            (_, Some(new)) => {
                format!("{} accepts writes from {} on, timeline {}", new.name, new.lsn, new.timeline)
            }
            (None, None) => String::new(),
        });
    }
    for member in now.members.iter().filter(|member| !member.standing.leads()) {
        let earlier = before.member(&member.name).map(|earlier| earlier.state.as_str());
        // Whether a member answers is asked only at the beginning.
        if earlier.is_none_or(|earlier| earlier == member.state || earlier == "unreachable") {
            continue;
        }
        steps.push(match member.state.as_str() {
            "running" => format!("{} runs and does not stream yet", member.name),
            state => format!("{} is {state}", member.name),
        });
    }
    for member in before.members.iter().filter(|member| now.member(&member.name).is_none()) {
        steps.push(format!("{} is gone", member.name));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::steps;
    use crate::render::tests::plain;
    use crate::view::{Lead, Standing, Writable};
    use types::Lsn;

    #[test]
    fn each_change_is_one_sentence() {
        let before = plain();
        assert!(steps(&before, &before).is_empty());
        let mut free = before.clone();
        free.lead = None;
        free.members[0].state = "stopping".into();
        free.members[0].standing = Standing::Replica;
        free.members[1].state = "running".into();
        let mut led = free.clone();
        led.lead = Some(Lead { name: "pg-2".into(), term: 40 });
        led.writable = Some(Writable { name: "pg-2".into(), term: 40, timeline: 4, lsn: Lsn(0x500_0060) });
        led.members.remove(0);
        let told = [steps(&before, &free), steps(&free, &led)].concat().join("\n");
        insta::assert_snapshot!(told, @r"
        pg-1 has given the lead back (term 17 is over)
        pg-1 is stopping
        pg-2 runs and does not stream yet
        pg-2 holds the lead (term 40)
        pg-2 accepts writes from 0/5000060 on, timeline 4
        pg-1 is gone
        ");
    }
}
