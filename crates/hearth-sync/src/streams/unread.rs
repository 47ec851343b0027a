//! How many events a user has not read in a room: in all, in the main timeline, and in each thread.
//!
//! Derived: a running count of what the default push rules notify for, less that up to which he has read, and what is written
//! for him or for all beside it. Where his rules mute a room, only what is written for him counts.
//! Spec: client-server API, "Receiving notifications"; `unread_notifications` in "Syncing".

use std::sync::Arc;

use hearth_matrix::push::Outcome;
use hearth_store::{EventNum, EventPush, Position, RoomHead, RoomNum, StoreError, Told, Tx, UserNum};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::v3::write;

/// Unread events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    notify: i32,
    highlight: i32,
}

/// What a user has not read in a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Badge {
    main: Count,
    /// By the ids of their roots.
    threads: Vec<(Arc<str>, Count)>,
    /// Nothing behind this position counts.
    newest: Position,
}

impl Count {
    fn is_zero(self) -> bool {
        self == Self::default()
    }

    fn add(&mut self, notify: i64, highlight: i64) {
        let sum = |count: i32, more: i64| (i64::from(count) + more).try_into().unwrap_or(i32::MAX);
        (self.notify, self.highlight) = (sum(self.notify, notify), sum(self.highlight, highlight));
    }

    fn write(self, out: &mut String) {
        let (highlight, notify) = (self.highlight.max(0), self.notify.max(0));
        write::push(out, format_args!("{{\"highlight_count\":{highlight},\"notification_count\":{notify}}}"));
    }
}

impl Badge {
    /// Appends the counts: apart for each thread, if the client asks for that.
    pub(crate) fn write(&self, out: &mut String, by_thread: bool) {
        write::key(out, "unread_notifications");
        if !by_thread {
            let mut all = self.main;
            self.threads
                .iter()
                .for_each(|(_, count)| all.add(count.notify.max(0).into(), count.highlight.max(0).into()));
            return all.write(out);
        }
        self.main.write(out);
        let mut unread = self.threads.iter().filter(|(_, count)| count.notify > 0 || count.highlight > 0).peekable();
        if unread.peek().is_none() {
            return;
        }
        write::key(out, "unread_thread_notifications");
        out.push('{');
        for (root, count) in unread {
            write::key(out, root);
            count.write(out);
        }
        out.push('}');
    }

    /// Whether there is nothing unread.
    pub(crate) fn is_zero(&self) -> bool {
        self.main.is_zero() && self.threads.iter().all(|(_, count)| count.is_zero())
    }

    /// Another's event came.
    pub(crate) fn count(&mut self, user: UserNum, push: &EventPush, thread: Option<&Arc<str>>, at: Position) {
        let told = push.told.binary_search_by_key(&user, |told| told.user).ok().and_then(|index| push.told.get(index));
        let (notify, highlight) = match told {
            Some(Told { notify, highlight, .. }) => (*notify, *highlight),
            None => (push.outcome > 0, Outcome::is_highlight(push.outcome)),
        };
        if !notify && !highlight {
            return;
        }
        self.newest = at;
        let count = match thread {
            None => &mut self.main,
            Some(root) => {
                let index = self.threads.iter().position(|(known, _)| known == root).unwrap_or_else(|| {
                    self.threads.push((root.clone(), Count::default()));
                    self.threads.len() - 1
                });
                &mut self.threads[index].1
            }
        };
        count.add(notify.into(), highlight.into());
    }

    /// The user has read up to a position: everything, the main timeline, or a thread. False if it is not known what that
    /// leaves.
    pub(crate) fn read(&mut self, what: &str, upto: Position) -> bool {
        let timeline: &mut Count = match what {
            "" if upto >= self.newest => {
                self.main = Count::default();
                self.threads.clear();
                return true;
            }
            "" => return self.is_zero(),
            "main" => &mut self.main,
            root => match self.threads.iter_mut().find(|(known, _)| **known == *root) {
                Some((_, count)) => count,
                None => return true,
            },
        };
        if upto >= self.newest {
            *timeline = Count::default();
        }
        timeline.is_zero()
    }
}

/// What a user has not read in rooms.
#[derive(Default)]
pub(crate) struct Badges {
    pub(crate) by_room: FxHashMap<RoomNum, Badge>,
    /// Rooms with events to be read, whether the user's rules count them or not.
    pub(crate) unread: FxHashSet<RoomNum>,
}

/// What a user has not read in rooms that he is joined to.
pub(crate) fn badges(tx: &mut Tx<'_>, user: UserNum, heads: &[RoomHead]) -> Result<Badges, StoreError> {
    let mut badges = Badges::default();
    if heads.is_empty() {
        return Ok(badges);
    }
    let nums: Vec<i64> = heads.iter().map(|head| head.room.0).collect();
    let mut counts: FxHashMap<(RoomNum, Option<EventNum>), Count> = FxHashMap::default();
    let read: FxHashMap<RoomNum, i64> = tx.notifications().read_of_main(user, &nums)?.into_iter().collect();
    for head in heads {
        let notify = read.get(&head.room).map_or(0, |read| head.unread - read);
        counts.entry((head.room, None)).or_default().add(notify, 0);
    }
    for (room, root, notify) in tx.notifications().unread_threads(user, &nums)? {
        counts.entry((room, Some(root))).or_default().add(notify, 0);
    }
    for note in tx.notifications().notes(user, &nums)? {
        counts.entry((note.room, note.thread)).or_default().add(note.notify, note.highlight);
    }
    let mut muted = Vec::new();
    if let Some(profile) = tx.push_profiles().of(user)? {
        for head in heads {
            let room = tx.rooms().by_num(head.room)?;
            if !profile.hears_messages(&room.room_id, u64::try_from(head.joined).unwrap_or(0)) {
                muted.push(head.room);
            }
        }
    }
    badges.unread.extend(counts.iter().filter(|(_, count)| !count.is_zero()).map(|((room, _), _)| *room));
    counts.retain(|(room, _), _| !muted.contains(room));
    for row in tx.notifications().unread(user, &nums)? {
        badges.unread.insert(row.room);
        let count = counts.entry((row.room, row.thread)).or_default();
        match muted.contains(&row.room) {
            true => count.add(row.notify, row.highlight),
            false => count.add(row.notify - row.plain, row.highlight - row.plain_highlight),
        }
    }
    for head in heads {
        badges.by_room.insert(head.room, Badge { newest: head.last_position, ..Badge::default() });
    }
    for ((room, thread), count) in counts {
        let Some(badge) = badges.by_room.get_mut(&room) else { continue };
        match thread {
            None => badge.main = count,
            Some(_) if count.is_zero() => {}
            Some(root) => badge.threads.push((tx.events().id(root)?.as_str().into(), count)),
        }
    }
    Ok(badges)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hearth_store::{EventPush, Position, StringNum, Told};

    use super::Badge;

    fn written(badge: &Badge, by_thread: bool) -> String {
        let mut out = String::from("{");
        badge.write(&mut out, by_thread);
        out
    }

    #[test]
    fn counts_follow_what_is_heard() {
        let (me, root): (_, Arc<str>) = (StringNum(7), "$root".into());
        let plain = EventPush { outcome: 1, ..EventPush::default() };
        let told = |notify, highlight| EventPush {
            outcome: 1,
            told: [Told { user: me, notify, highlight, actions: String::new(), written: true }].into(),
        };
        let mut badge = Badge::default();
        badge.count(me, &plain, None, Position(1));
        badge.count(me, &told(false, false), None, Position(2));
        badge.count(me, &told(true, true), Some(&root), Position(3));
        assert_eq!(written(&badge, false), r#"{"unread_notifications":{"highlight_count":1,"notification_count":2}"#);
        assert_eq!(
            written(&badge, true),
            r#"{"unread_notifications":{"highlight_count":0,"notification_count":1},"unread_thread_notifications":{"$root":{"highlight_count":1,"notification_count":1}}"#
        );
        assert!(badge.read("$other", Position(9)));
        assert!(!badge.clone().read("", Position(2)), "what it leaves is not known");
        assert!(badge.read("$root", Position(3)) && !badge.is_zero());
        assert!(badge.read("", Position(3)) && badge.is_zero());
        assert!(badge.read("main", Position(1)), "nothing was left");
    }
}
