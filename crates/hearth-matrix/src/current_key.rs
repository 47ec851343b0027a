//! The key that signs now, shared by all who sign: it can be exchanged while they work.

use std::sync::{Arc, PoisonError, RwLock};

use crate::SigningKey;

/// The signing key of this moment. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct CurrentKey(Arc<RwLock<Arc<SigningKey>>>);

impl CurrentKey {
    /// The key that signs now. Ask for each signature: it may be another one then.
    pub fn get(&self) -> Arc<SigningKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another key signs from now on.
    pub fn replace(&self, key: SigningKey) -> Arc<SigningKey> {
        std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), Arc::new(key))
    }
}

impl From<SigningKey> for CurrentKey {
    fn from(key: SigningKey) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(key))))
    }
}
