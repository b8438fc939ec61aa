//! `CachedUpload`: a multipart upload, which changes its object when it is completed, not before.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::Core;
use super::object_store::path::Path;
use super::object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};

pub(crate) struct CachedUpload {
    pub(crate) core: Arc<Core>,
    pub(crate) location: Path,
    pub(crate) inner: Box<dyn MultipartUpload>,
}

impl fmt::Debug for CachedUpload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CachedUpload")
            .field("location", &self.location)
            .field("inner", &self.inner)
            .finish()
    }
}

#[async_trait]
impl MultipartUpload for CachedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.core.write(vec![self.location.clone()], self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
