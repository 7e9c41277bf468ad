//! The Secret with the keys of a deployment.
//!
//! It can be changed, although it is not meant to be: of a Secret that is immutable, a kubelet keeps what it has read for as
//! long as any pod on its node refers to the name, so that after a rotation the members of one group would read different
//! keys on different nodes.

use std::fmt::{self, Debug, Formatter};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::metadata;
use crate::api::MoEDeployment;
use crate::keys::Keys;
use crate::names;

/// A Secret that shows what it is and which keys it has, and none of their values.
#[derive(Clone, PartialEq)]
pub struct KeysSecret(pub(crate) Secret);

impl Debug for KeysSecret {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("KeysSecret").field(&self.0.name_any()).finish()
    }
}

impl Serialize for KeysSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut secret = serializer.serialize_struct("KeysSecret", 3)?;
        secret.serialize_field("metadata", &self.0.metadata)?;
        secret.serialize_field("type", &self.0.type_)?;
        secret.serialize_field("keys", &self.0.data.iter().flatten().map(|(key, _)| key).collect::<Vec<_>>())?;
        secret.end()
    }
}

pub(super) fn build(deployment: &MoEDeployment, keys: &Keys) -> KeysSecret {
    let mut metadata = metadata(deployment, names::keys(&deployment.name_any()));
    let asked = deployment.annotations().get(names::ROTATE_KEYS);
    metadata.annotations = asked.map(|value| [(names::ROTATE_KEYS.to_owned(), value.clone())].into());
    KeysSecret(Secret { metadata, type_: Some("Opaque".to_owned()), data: Some(keys.data()), ..Secret::default() })
}
