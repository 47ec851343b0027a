//! Profiles of local users: display name, avatar and free fields, each a JSON value.

use crate::{Change, Publication, StoreError, StringNum, Tx, UserNum, Value};

/// Profiles, seen from a transaction.
pub struct Profiles<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Profiles of local users.
    pub fn profiles(&mut self) -> Profiles<'_, 'c> {
        Profiles { tx: self }
    }
}

impl Profiles<'_, '_> {
    /// One field, as JSON.
    pub fn field(&mut self, user: UserNum, field: &str) -> Result<Option<String>, StoreError> {
        self.tx.one(
            "SELECT value FROM profiles WHERE usr = $1 AND field = $2",
            &[user.into(), field.as_bytes().into()],
            |row| Ok(row.utf8(0)?.to_owned()),
        )
    }

    /// All fields and their JSON, in order of their names.
    pub fn all(&mut self, user: UserNum) -> Result<Vec<(String, String)>, StoreError> {
        self.tx.query("SELECT field, value FROM profiles WHERE usr = $1 ORDER BY field", &[user.into()], |row| {
            Ok((row.utf8(0)?.to_owned(), row.utf8(1)?.to_owned()))
        })
    }

    /// Sets a field to a JSON value.
    pub fn set(&mut self, user: UserNum, field: &str, value: &str) -> Result<(), StoreError> {
        let mut publication = Publication::new(Change::Profile { user });
        publication.exec(
            "INSERT INTO profiles (usr, field, value, position) VALUES ($1, $2, $3, position($4)) \
             ON CONFLICT (usr, field) DO UPDATE SET value = excluded.value, position = excluded.position",
            &[user.into(), field.as_bytes().into(), value.as_bytes().into(), Value::Position],
        );
        self.tx.publish(publication);
        Ok(())
    }

    /// Removes a field.
    pub fn remove(&mut self, user: UserNum, field: &str) -> Result<(), StoreError> {
        let mut publication = Publication::new(Change::Profile { user });
        publication.exec("DELETE FROM profiles WHERE usr = $1 AND field = $2", &[user.into(), field.as_bytes().into()]);
        self.tx.publish(publication);
        Ok(())
    }

    /// The user's rooms are to show a change: to be remembered until they do.
    pub fn set_unshown(&mut self, user: UserNum) -> Result<(), StoreError> {
        self.tx.exec(
            "INSERT INTO profiles_unshown (usr, changes) VALUES ($1, 1) \
             ON CONFLICT (usr) DO UPDATE SET changes = profiles_unshown.changes + 1",
            &[user.into()],
        )
    }

    /// Whose rooms do not show all changes yet, in order of their numbers: behind `after`, at most so many users.
    pub fn unshown(&mut self, after: UserNum, limit: i64) -> Result<Vec<UserNum>, StoreError> {
        self.tx.query(
            "SELECT usr FROM profiles_unshown WHERE usr > $1 ORDER BY usr LIMIT $2",
            &[after.into(), limit.into()],
            |row| Ok(StringNum(row.int(0)?)),
        )
    }

    /// How many changes of a user his rooms do not show yet.
    pub fn changes_unshown(&mut self, user: UserNum) -> Result<Option<i64>, StoreError> {
        self.tx.one("SELECT changes FROM profiles_unshown WHERE usr = $1", &[user.into()], |row| row.int(0))
    }

    /// The rooms show all that was changed when there were so many changes.
    pub fn set_shown(&mut self, user: UserNum, changes: i64) -> Result<(), StoreError> {
        self.tx.exec("DELETE FROM profiles_unshown WHERE usr = $1 AND changes = $2", &[user.into(), changes.into()])
    }

    /// Removes the whole profile.
    pub fn remove_all(&mut self, user: UserNum) -> Result<(), StoreError> {
        let mut publication = Publication::new(Change::Profile { user });
        publication.exec("DELETE FROM profiles WHERE usr = $1", &[user.into()]);
        self.tx.publish(publication);
        Ok(())
    }
}
