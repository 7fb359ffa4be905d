//! The transition that was running at a crash, or that ended before it.

use std::time::Duration;

use serde::{Deserialize, Serializer, ser::SerializeStruct as _};

use crate::{
    lifecycle::{Lifecycle, age},
    transition::{BootTime, Direction, Transition},
};

/// A transition that was running at a crash, or that ended before it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PatchTransition {
    /// The livepatch, by its module's name.
    pub patch: String,
    /// Whether it patches or unpatches.
    pub direction: Direction,
    /// Seconds from its start to the crash if it was running, from its end otherwise; `None` if the
    /// times are unknown.
    #[serde(alias = "running_for_seconds", alias = "ended_before_seconds")]
    pub seconds: Option<f64>,
}

impl PatchTransition {
    /// The running transition, if its patch is known.
    #[must_use]
    pub fn running(life: &Lifecycle, now: Option<BootTime>) -> Option<Self> {
        let running = life.transition.as_ref()?;
        Self::of(running, age(running.start, now))
    }

    /// The last transition that ended, if its patch and direction are known.
    #[must_use]
    pub fn ended(life: &Lifecycle, now: Option<BootTime>) -> Option<Self> {
        let ended = life.ended.as_ref()?;
        Self::of(ended.transition.as_ref()?, life.ended_before(now))
    }

    fn of(transition: &Transition, age: Option<Duration>) -> Option<Self> {
        Some(Self {
            patch: transition.patch.clone()?,
            direction: transition.direction,
            seconds: age.map(|age| age.as_secs_f64()),
        })
    }
}

/// In JSON the name of the seconds says what they count from.
fn with_seconds_as<S: Serializer>(
    name: &'static str,
    transition: Option<&PatchTransition>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let Some(transition) = transition else {
        return serializer.serialize_none();
    };
    let mut json = serializer.serialize_struct("PatchTransition", 3)?;
    json.serialize_field("patch", &transition.patch)?;
    json.serialize_field("direction", &transition.direction)?;
    json.serialize_field(name, &transition.seconds)?;
    json.end()
}

pub(super) fn as_running<S: Serializer>(
    transition: &Option<PatchTransition>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    with_seconds_as("running_for_seconds", transition.as_ref(), serializer)
}

pub(super) fn as_ended<S: Serializer>(
    transition: &Option<PatchTransition>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    with_seconds_as("ended_before_seconds", transition.as_ref(), serializer)
}
