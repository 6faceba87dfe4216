//! Images: listed, fetched, built, moved.

use std::time::Duration;

use hyper::{Method, header};
use tokio::io::AsyncRead;

use super::client::{Docker, Question};
use super::containers::Archive;
use super::exchange::Patience;
use super::fault::Fault;
use super::model::{Image, ImageListed, ImageRemoved, Listed, filters};
use super::names::ImageName;
use super::spec::{BuildSpec, RegistryAuth};
use super::target::Target;
use super::told::{Progress, Told};

const REGISTRY_AUTH: header::HeaderName = header::HeaderName::from_static("x-registry-auth");
/// A daemon writes gigabytes to its disk before it says more.
const MOVED: Patience = Patience::of(Duration::from_mins(10));

impl Docker {
    /// Images that have a label, or all.
    pub async fn images(&self, label: Option<&str>) -> Result<Vec<ImageListed>, Fault> {
        let filter = label.map(|label| filters(&[("label", label)]));
        let target = Target::new("/images/json").maybe("filters", filter.as_deref());
        let listed: Listed<_> = self.read(Question::get(target)).await?;
        Ok(listed.0)
    }

    /// All that is known of one.
    pub async fn inspect_image(&self, name: &ImageName) -> Result<Image, Fault> {
        self.read(Question::get(Target::of_image(name).then("/json"))).await
    }

    /// Fetches one from its registry. It is there when all has been told without an error.
    pub async fn pull(
        &self,
        name: &ImageName,
        auth: Option<&RegistryAuth>,
    ) -> Result<Told<Progress>, Fault> {
        let target = Target::new("/images/create");
        let target = target.query("fromImage", name.repository()).query("tag", name.tag());
        let mut question = Question::post(target).patience(MOVED);
        question.headers.extend(auth.map(|auth| (REGISTRY_AUTH, auth.header())));
        Ok(Told::new(self.ask(question).await?))
    }

    /// Builds one of a context, a tar that is read as fast as the daemon takes it. A step may be
    /// silent for as long as it likes.
    pub async fn build(
        &self,
        spec: &BuildSpec,
        context: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Told<Progress>, Fault> {
        let mut target = Target::new("/build").query("version", "1").query("rm", "1");
        target = target.query("forcerm", "1").flag("pull", spec.pull);
        target = target.maybe("dockerfile", spec.dockerfile.as_deref());
        for tag in &spec.tags {
            target = target.query("t", tag.as_str());
        }
        // Texts only: nothing in it fails.
        let labels = serde_json::to_string(&spec.labels).unwrap_or_default();
        let question = Question::post(target.query("labels", &labels)).tar(context);
        Ok(Told::new(self.ask(question.patience(MOVED.with_silence())).await?))
    }

    /// Images as one archive; an error while it is read holds a [`Fault`].
    pub async fn save(&self, names: &[ImageName]) -> Result<Archive, Fault> {
        let target = Target::new("/images/get");
        let target = names.iter().fold(target, |target, name| target.query("names", name.as_str()));
        Ok(Archive::new(self.ask(Question::get(target).patience(MOVED)).await?))
    }

    /// Takes the images of an archive, which is read as fast as the daemon takes it. They
    /// are there when all has been told without an error.
    pub async fn load(
        &self,
        archive: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Told<Progress>, Fault> {
        let question = Question::post(Target::new("/images/load")).tar(archive).patience(MOVED);
        Ok(Told::new(self.ask(question).await?))
    }

    /// Gives one another reference, which must not be by digest.
    pub async fn tag(&self, name: &ImageName, new: &ImageName) -> Result<(), Fault> {
        let target = Target::of_image(name).then("/tag");
        let target = target.query("repo", new.repository()).query("tag", new.tag());
        self.does(Question::post(target)).await
    }

    /// Takes a reference away, and the image with its last one.
    ///
    /// # Errors
    /// [`super::Refusal::InUse`] while a container is made of it.
    pub async fn remove_image(
        &self,
        name: &ImageName,
        force: bool,
    ) -> Result<Vec<ImageRemoved>, Fault> {
        let target = Target::of_image(name).flag("force", force);
        let question = Question::new(Method::DELETE, target).patience(MOVED);
        let removed: Listed<_> = self.read(question).await?;
        Ok(removed.0)
    }
}
