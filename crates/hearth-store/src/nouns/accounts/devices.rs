//! Devices of local users: each login has one, tokens belong to it.

use crate::engine::Counter;
use crate::{DeviceNum, Row, StoreError, Tx, UserNum};

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub num: DeviceNum,
    /// Its id, unique among its user's devices.
    pub device_id: String,
    /// The name that its user gave it.
    pub display_name: Option<String>,
    /// Address and time (in milliseconds) of its last request, written down now and then.
    pub last_seen: Option<(String, i64)>,
}

fn device(row: &dyn Row) -> Result<Device, StoreError> {
    Ok(Device {
        num: DeviceNum(row.int(0)?),
        device_id: row.utf8(1)?.to_owned(),
        display_name: row.opt_bytes(2)?.map(|name| String::from_utf8_lossy(name).into_owned()),
        last_seen: row.opt_text(3)?.map(str::to_owned).zip(row.opt_int(4)?),
    })
}

/// Devices, seen from a transaction.
pub struct Devices<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Devices of local users.
    pub fn devices(&mut self) -> Devices<'_, 'c> {
        Devices { tx: self }
    }
}

impl Devices<'_, '_> {
    /// The device of that id, made now if there is none; a known one keeps its name and loses its tokens. The
    /// caller holds the user's lock.
    pub fn sign_in(
        &mut self,
        user: UserNum,
        device_id: &str,
        initial_display_name: Option<&str>,
        now_ms: i64,
    ) -> Result<DeviceNum, StoreError> {
        if let Some(known) = self.get(user, device_id)? {
            self.tx.tokens().revoke_of_device(user, known.num)?;
            return Ok(known.num);
        }
        let num = self.tx.next_number(Counter::Devices)?;
        self.tx.exec(
            "INSERT INTO devices (num, usr, device_id, display_name, last_seen_ip, last_seen_ts, created_ts) \
             VALUES ($1, $2, $3, $4, NULL, NULL, $5)",
            &[
                num.into(),
                user.into(),
                device_id.as_bytes().into(),
                initial_display_name.map(str::as_bytes).into(),
                now_ms.into(),
            ],
        )?;
        Ok(DeviceNum(num))
    }

    /// A user's device.
    pub fn get(&mut self, user: UserNum, device_id: &str) -> Result<Option<Device>, StoreError> {
        self.tx.one(
            "SELECT num, device_id, display_name, last_seen_ip, last_seen_ts FROM devices WHERE usr = $1 AND device_id = $2",
            &[user.into(), device_id.as_bytes().into()],
            device,
        )
    }

    /// How many devices a user has.
    pub fn count(&mut self, user: UserNum) -> Result<i64, StoreError> {
        let count = self.tx.one("SELECT COUNT(*) FROM devices WHERE usr = $1", &[user.into()], |row| row.int(0))?;
        Ok(count.unwrap_or(0))
    }

    /// All devices of a user.
    pub fn list(&mut self, user: UserNum) -> Result<Vec<Device>, StoreError> {
        self.tx.query(
            "SELECT num, device_id, display_name, last_seen_ip, last_seen_ts FROM devices WHERE usr = $1 ORDER BY device_id",
            &[user.into()],
            device,
        )
    }

    /// Gives a device another name, or none.
    pub fn rename(&mut self, device: DeviceNum, display_name: Option<&str>) -> Result<(), StoreError> {
        self.tx.exec(
            "UPDATE devices SET display_name = $2 WHERE num = $1",
            &[device.into(), display_name.map(str::as_bytes).into()],
        )
    }

    /// Deletes a device and its tokens.
    pub fn delete(&mut self, user: UserNum, device: DeviceNum) -> Result<(), StoreError> {
        self.tx.tokens().revoke_of_device(user, device)?;
        self.tx.exec("DELETE FROM devices WHERE num = $1 AND usr = $2", &[device.into(), user.into()])
    }

    /// Deletes all devices of a user but one, with their tokens. Tokens without a device go too.
    pub fn delete_all_but(&mut self, user: UserNum, kept: Option<DeviceNum>) -> Result<(), StoreError> {
        let kept = kept.map_or(-1, |device| device.0);
        self.tx.tokens().announce_change(user);
        self.tx.exec("DELETE FROM devices WHERE usr = $1 AND num <> $2", &[user.into(), kept.into()])?;
        self.tx.exec("DELETE FROM refresh_tokens WHERE usr = $1 AND device <> $2", &[user.into(), kept.into()])?;
        self.tx
            .exec("DELETE FROM access_tokens WHERE usr = $1 AND COALESCE(device, 0) <> $2", &[user.into(), kept.into()])
    }

    /// Writes down where devices were last seen: device, address, milliseconds.
    pub fn seen(&mut self, seen: &[(DeviceNum, String, i64)]) -> Result<(), StoreError> {
        for (device, address, at_ms) in seen {
            self.tx.exec(
                "UPDATE devices SET last_seen_ip = $2, last_seen_ts = $3 WHERE num = $1",
                &[(*device).into(), address.into(), (*at_ms).into()],
            )?;
        }
        Ok(())
    }
}
