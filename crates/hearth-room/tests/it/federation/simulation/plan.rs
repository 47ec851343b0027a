//! What a seed stands for: so many servers, a room's version, and steps. Each step has its own chance, so that the others stay
//! what they are when one is left out.

use std::fmt;

use hearth_matrix::ruma::RoomVersionId;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

const VERSIONS: [RoomVersionId; 6] = [
    RoomVersionId::V1,
    RoomVersionId::V2,
    RoomVersionId::V6,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// A user: which, and of which server.
pub(super) type Who = (usize, usize);

/// All that happens.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) version: RoomVersionId,
    pub(super) servers: usize,
    /// How far the clocks of the servers are ahead.
    pub(super) clocks: Vec<i64>,
    /// Servers that are in the room from the beginning.
    pub(super) residents: Vec<usize>,
    /// Levels of the residents' first users.
    pub(super) levels: Vec<i64>,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(super) struct Step {
    /// How the clocks go on.
    pub(super) ticks: Vec<i64>,
    pub(super) deed: Deed,
}

#[derive(Clone, Debug)]
pub(super) enum Deed {
    /// A link breaks.
    Cut(usize, usize),
    /// A server answers nothing.
    Mute(usize),
    /// All links are whole, and all servers answer.
    Heal,
    /// A packet arrives, is lost, or arrives and stays for another time.
    Fly {
        at: usize,
        fate: u8,
    },
    /// A server stops and starts.
    Restart(usize),
    /// Somebody reads back.
    ReadBack(usize),
    Say(Who),
    Topic(Who),
    State(Who, u8),
    /// Gives a level to a user.
    Level(Who, Who, i64),
    /// Asks a level for a type.
    Ask(Who, &'static str, i64),
    JoinRule(Who, &'static str),
    Ban(Who, Who),
    Kick(Who, Who),
    Unban(Who, Who),
    Invite(Who, Who),
    Knock(Who),
    Leave(Who),
    Join(Who, usize),
    Redact(Who, usize),
    /// A server sends what none of its users made.
    Forge(Forgery),
}

#[derive(Clone, Debug)]
pub(super) struct Forgery {
    pub(super) by: Who,
    pub(super) whom: Who,
    pub(super) kind: u8,
    /// What it follows: the newest, or something of before.
    pub(super) follows: Option<usize>,
    /// What it names as what allows it: the right events, or too few, or another.
    pub(super) auth: u8,
    pub(super) depth: i64,
    /// Who gets it, bit by bit.
    pub(super) to: u8,
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let servers = chance.random_range(3..=7);
        let version = VERSIONS[usize::try_from(seed).unwrap_or(0) % VERSIONS.len()].clone();
        let clocks = (0..servers).map(|_| chance.random_range(0..2_000)).collect();
        let residents: Vec<usize> = (1..servers).filter(|_| chance.random_bool(0.8)).collect();
        let levels = residents.iter().map(|_| [0, 0, 50, 50, 75, 100][chance.random_range(0..6)]).collect();
        let steps = chance.random_range(60..180);
        let steps = (0..steps).map(|n| Step::of(seed, n, servers)).collect();
        Self { seed, version, servers, clocks, residents, levels, steps }
    }
}

impl Step {
    fn of(seed: u64, n: u64, servers: usize) -> Self {
        let mut chance = StdRng::seed_from_u64(seed.wrapping_mul(10_007).wrapping_add(n + 1));
        let ticks = (0..servers).map(|_| chance.random_range(0..20)).collect();
        Self { ticks, deed: Deed::of(&mut chance, servers) }
    }
}

impl Deed {
    fn of(chance: &mut StdRng, servers: usize) -> Self {
        let mut server = || chance.random_range(0..servers);
        let (a, b) = (server(), server());
        // Those of the first users more often, who may more.
        let mut anybody = || (usize::from(chance.random_bool(0.3)), chance.random_range(0..servers));
        let (who, whom) = (anybody(), anybody());
        let level = [0, 25, 50, 75, 100][chance.random_range(0..5)];
        let at = chance.random_range(0..1_000);
        match chance.random_range(0..200) {
            0..6 => Self::Cut(a, b),
            6 => Self::Mute(a),
            7..11 => Self::Heal,
            11 => Self::Restart(a),
            12..14 => Self::ReadBack(a),
            14..90 => Self::Fly { at, fate: chance.random_range(0..20) },
            90..112 => Self::Say(who),
            112..120 => Self::Topic(who),
            120..126 => Self::State(who, chance.random_range(0..3)),
            126..136 => Self::Level(who, whom, level),
            136..139 => {
                let kinds = ["m.room.topic", "m.room.message", "m.room.power_levels", "m.room.join_rules"];
                Self::Ask(who, kinds[chance.random_range(0..kinds.len())], level)
            }
            139..146 => {
                let rules = ["public", "public", "invite", "knock", "private"];
                Self::JoinRule(who, rules[chance.random_range(0..rules.len())])
            }
            146..152 => Self::Ban(who, whom),
            152..157 => Self::Kick(who, whom),
            157..161 => Self::Unban(who, whom),
            161..165 => Self::Invite(who, whom),
            165 => Self::Knock(who),
            166..170 => Self::Leave(who),
            170..186 => Self::Join(who, a),
            186..191 => Self::Redact(who, at),
            _ => Self::Forge(Forgery {
                by: who,
                whom,
                kind: chance.random_range(0..7),
                follows: chance.random_bool(0.5).then_some(at),
                auth: chance.random_range(0..6),
                depth: chance.random_range(-5..5),
                to: chance.random_range(0..=255),
            }),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, version, servers, clocks, residents, levels, steps } = self;
        writeln!(f, "seed {seed}, version {version}, {servers} servers, clocks {clocks:?}")?;
        writeln!(f, "residents {residents:?} with levels {levels:?}")?;
        steps.iter().try_for_each(|step| writeln!(f, "  {:?} {:?}", step.deed, step.ticks))
    }
}
