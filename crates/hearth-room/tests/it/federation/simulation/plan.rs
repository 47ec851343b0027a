//! What a seed stands for: so many servers, a room's version, and steps. Each step has its own chance, so that the others stay
//! what they are when one is left out.
//!
//! There are two kinds of plans. A narrow one knows some versions and one room. The usual one is made of it, with dice of its
//! own: all versions, and beside the room a lobby, by which one comes in where the join rules are `restricted`.

use std::fmt;

use hearth_matrix::ruma::RoomVersionId;
use hearth_matrix::{RoomVersionRules, SUPPORTED_VERSIONS, rules};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

use super::USERS;

/// Versions of narrow plans.
const NARROW_VERSIONS: [RoomVersionId; 6] = [
    RoomVersionId::V1,
    RoomVersionId::V2,
    RoomVersionId::V6,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// Tells the dice that make a plan wider from those of the narrow one.
const WIDER: u64 = 0x0077_6964_6572;

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
    /// Who is in the lobby from the beginning. It is a room of the first user; without him there is none.
    pub(super) lobby: Vec<Who>,
    /// The join rule when the steps begin, if it is not that of a public room.
    pub(super) join_rule: Option<&'static str>,
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
    /// Gives a level of its own name, or takes it away.
    Name(Who, &'static str, Option<i64>),
    JoinRule(Who, &'static str),
    Ban(Who, Who),
    Kick(Who, Who),
    Unban(Who, Who),
    Invite(Who, Who),
    Knock(Who),
    Leave(Who),
    Join(Who, usize),
    /// Comes in as clients do: also through others, where nobody of the own server may let one in.
    Enter(Who, usize),
    /// Knocks as clients do: also through others.
    KnockThrough(Who, usize),
    /// Comes into the lobby, or leaves it.
    Lobby(Who, usize),
    LeaveLobby(Who),
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
    /// The plan of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed ^ WIDER);
        let mut plan = Self::narrow(seed);
        plan.version = SUPPORTED_VERSIONS[usize::try_from(seed).unwrap_or(0) % SUPPORTED_VERSIONS.len()].clone();
        let everybody = (0..plan.servers).flat_map(|n| (0..USERS).map(move |u| (u, n)));
        plan.lobby = everybody.filter(|who| *who == (0, 0) || chance.random_bool(0.6)).collect();
        let ways = ways_in(rules(&plan.version).expect("known"));
        plan.join_rule = Some(ways[chance.random_range(0..ways.len())]);
        for (n, step) in (0..).zip(&mut plan.steps) {
            let mut chance = StdRng::seed_from_u64(Step::seed(seed, n) ^ WIDER);
            if chance.random_bool(0.25) {
                step.deed = Deed::wider(&mut chance, plan.servers, &ways);
            }
        }
        plan
    }

    /// The narrow plan of a seed.
    pub(super) fn narrow(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let servers = chance.random_range(3..=7);
        let version = NARROW_VERSIONS[usize::try_from(seed).unwrap_or(0) % NARROW_VERSIONS.len()].clone();
        let clocks = (0..servers).map(|_| chance.random_range(0..2_000)).collect();
        let residents: Vec<usize> = (1..servers).filter(|_| chance.random_bool(0.8)).collect();
        let levels = residents.iter().map(|_| [0, 0, 50, 50, 75, 100][chance.random_range(0..6)]).collect();
        let steps = chance.random_range(60..180);
        let steps = (0..steps).map(|n| Step::of(seed, n, servers)).collect();
        Self { seed, version, servers, clocks, residents, levels, lobby: Vec::new(), join_rule: None, steps }
    }
}

/// Join rules that let somebody in who is not invited: those that ask for more are there more often.
fn ways_in(rules: &RoomVersionRules) -> Vec<&'static str> {
    let rules = &rules.authorization;
    let mut ways = vec!["public"];
    ways.extend(rules.knocking.then_some("knock"));
    ways.extend(rules.restricted_join_rule.then_some(["restricted"; 3]).into_iter().flatten());
    ways.extend(rules.knock_restricted_join_rule.then_some(["knock_restricted"; 2]).into_iter().flatten());
    ways
}

impl Step {
    fn of(seed: u64, n: u64, servers: usize) -> Self {
        let mut chance = StdRng::seed_from_u64(Self::seed(seed, n));
        let ticks = (0..servers).map(|_| chance.random_range(0..20)).collect();
        Self { ticks, deed: Deed::of(&mut chance, servers) }
    }

    /// What the chance of a plan's step begins with.
    fn seed(seed: u64, n: u64) -> u64 {
        seed.wrapping_mul(10_007).wrapping_add(n + 1)
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

    /// What narrow plans don't know.
    fn wider(chance: &mut StdRng, servers: usize, ways: &[&'static str]) -> Self {
        let mut anybody = || (usize::from(chance.random_bool(0.4)), chance.random_range(0..servers));
        let (who, whom) = (anybody(), anybody());
        let through = chance.random_range(0..servers);
        match chance.random_range(0..40) {
            0..5 => Self::JoinRule(who, ways[chance.random_range(0..ways.len())]),
            5..17 => Self::Enter(who, through),
            17..21 => Self::KnockThrough(who, through),
            21..24 => Self::Lobby(who, through),
            24..28 => Self::LeaveLobby(who),
            28..31 => Self::Leave(who),
            31..33 => Self::Kick(who, whom),
            33..36 => {
                let names = ["invite", "invite", "invite", "kick", "ban", "state_default", "users_default"];
                let levels = [None, Some(0), Some(25), Some(50), Some(75)];
                let level = levels[chance.random_range(0..levels.len())];
                Self::Name(who, names[chance.random_range(0..names.len())], level)
            }
            _ => Self::Forge(Forgery {
                by: who,
                whom,
                kind: chance.random_range(7..10),
                follows: chance.random_bool(0.5).then(|| chance.random_range(0..1_000)),
                auth: chance.random_range(0..8),
                depth: chance.random_range(-5..5),
                to: chance.random_range(0..=255),
            }),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, version, servers, clocks, residents, levels, lobby, join_rule, steps } = self;
        writeln!(f, "seed {seed}, version {version}, {servers} servers, clocks {clocks:?}")?;
        writeln!(f, "residents {residents:?} with levels {levels:?}, join rule {join_rule:?}, in the lobby {lobby:?}")?;
        steps.iter().try_for_each(|step| writeln!(f, "  {:?} {:?}", step.deed, step.ticks))
    }
}
