//! `baton remove`: forget a cluster. Everything that etcd holds of it is deleted; PostgreSQL and its data stay as they are.

use super::list::print;
use crate::ask::{self, Answers};
use crate::cli::RemoveArgs;
use crate::context::{Context, deadline};
use crate::failure::{Failure, Outcome};
use crate::render::list::{Wish, list};
use crate::view::Cluster;

/// What has to be typed.
const AWARE: &str = "Yes I am aware";

/// Shows the cluster, asks three times, removes it.
pub(crate) async fn run(context: &Context, args: &RemoveArgs, answers: &mut dyn Answers) -> Outcome {
    let (_, cluster) = context.look(&args.cluster).await?;
    print(&list(&cluster, Wish { format: args.format, extended: false, manner: context.manner }));
    sure(&cluster, answers)?;
    Ok(context.etcd(&cluster.name)?.remove_cluster(deadline()).await?)
}

fn sure(cluster: &Cluster, answers: &mut dyn Answers) -> Outcome {
    if ask::needed(answers, "Please confirm the cluster name to remove")? != cluster.name {
        return Err(Failure::refused("Cluster names specified do not match"));
    }
    let question = format!(
        "You are about to remove all information in DCS for {}, please type: \"{AWARE}\"",
        cluster.name
    );
    if ask::needed(answers, &question)? != AWARE {
        return Err(Failure::refused(format!("You did not exactly type \"{AWARE}\"")));
    }
    if let Some(lead) = &cluster.lead {
        let question = "This cluster currently is healthy. Please specify the leader name to continue";
        if ask::needed(answers, question)? != lead.name {
            return Err(Failure::refused("You did not specify the current leader of the cluster"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::sure;
    use crate::ask::tests::Script;
    use crate::render::tests::rich;

    #[test]
    fn three_answers_are_needed_while_somebody_leads() {
        let mut cluster = rich();
        assert!(sure(&cluster, &mut Script::new(&["", "demo", "Yes I am aware", "pg-1"])).is_ok());
        for answers in [&["other"][..], &["demo", "yes"], &["demo", "Yes I am aware", "pg-2"], &["demo"]] {
            assert!(sure(&cluster, &mut Script::new(answers)).is_err(), "{answers:?}");
        }
        cluster.lead = None;
        assert!(sure(&cluster, &mut Script::new(&["demo", "Yes I am aware"])).is_ok());
    }
}
