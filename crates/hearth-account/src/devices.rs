//! A user's devices.
//!
//! Spec: client-server API, "Device Management".

use hearth_store::{Device, Noun, StoreError, UserNum};

use crate::{Accounts, Attempt, Authenticated, InteractiveError};

/// Longest device id.
const DEVICE_ID_BYTES: usize = 255;
/// Longest display name, in characters.
const DISPLAY_NAME_CHARS: usize = 256;
/// Most devices deleted in one request.
const MOST: usize = 10_000;

/// Why nothing was done with a device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The user has no such device.
    #[error("unknown device")]
    NotFound,
    /// The id or name is too long, or there are too many.
    #[error("the device id or display name is too long")]
    TooLong,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) fn check_names(device_id: Option<&str>, display_name: Option<&str>) -> Result<(), DeviceError> {
    let id_fits = device_id.is_none_or(|id| (1..=DEVICE_ID_BYTES).contains(&id.len()));
    let name_fits = display_name.is_none_or(|name| name.chars().count() <= DISPLAY_NAME_CHARS);
    (id_fits && name_fits).then_some(()).ok_or(DeviceError::TooLong)
}

impl Accounts {
    /// All devices of a user.
    pub async fn devices(&self, user: UserNum) -> Result<Vec<Device>, StoreError> {
        let mut devices = self.store().read(move |tx| tx.devices().list(user)).await?;
        devices.iter_mut().for_each(|device| self.inner.sessions.add_last_seen(device));
        Ok(devices)
    }

    /// One device.
    pub async fn device(&self, user: UserNum, device_id: &str) -> Result<Device, DeviceError> {
        let device_id = device_id.to_owned();
        let found = self.store().read(move |tx| tx.devices().get(user, &device_id)).await?;
        let mut device = found.ok_or(DeviceError::NotFound)?;
        self.inner.sessions.add_last_seen(&mut device);
        Ok(device)
    }

    /// Gives a device another name.
    pub async fn rename_device(
        &self,
        user: UserNum,
        device_id: &str,
        display_name: Option<String>,
    ) -> Result<(), DeviceError> {
        check_names(None, display_name.as_deref())?;
        let device_id = device_id.to_owned();
        let renamed = self.store().write(vec![Noun::User(user)], move |tx| {
            let Some(device) = tx.devices().get(user, &device_id)? else { return Ok(false) };
            if let Some(display_name) = &display_name {
                tx.devices().rename(device.num, Some(display_name))?;
            }
            Ok(true)
        });
        renamed.await?.then_some(()).ok_or(DeviceError::NotFound)
    }

    /// Deletes devices, once the user has shown his password. Those that he does not have are no error.
    pub async fn delete_devices(
        &self,
        attempt: &Attempt,
        owner: &Authenticated,
        mut device_ids: Vec<String>,
    ) -> Result<(), InteractiveError> {
        self.ask_password(attempt, owner).await?;
        device_ids.truncate(MOST);
        let user = owner.user;
        let delete = self.store().write(vec![Noun::User(user)], move |tx| {
            for device_id in &device_ids {
                if let Some(device) = tx.devices().get(user, device_id)? {
                    tx.devices().delete(user, device.num)?;
                }
            }
            Ok(())
        });
        Ok(delete.await?)
    }
}
