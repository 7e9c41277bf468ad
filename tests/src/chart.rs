//! How the chart is installed with this checkout's images.

use crate::image::{Archive, gpu_runtime_image, operator_image, runtime_image};

/// The namespace of the operator.
pub const NAMESPACE: &str = "swiftbalancer-system";
/// The release, and with it the operator's Deployment and service account.
pub const RELEASE: &str = "swiftbalancer";

/// Arguments of `helm` that install the chart, or bring an installed one up to date, and wait until the operator is ready.
#[must_use]
pub fn install_arguments(images: &[Archive]) -> Vec<String> {
    let set = |name: &str, value: &str| ["--set".to_owned(), format!("{name}={value}")];
    let mut arguments: Vec<String> =
        ["upgrade", "--install", RELEASE, "charts/swiftbalancer", "--namespace", NAMESPACE, "--create-namespace"]
            .map(str::to_owned)
            .to_vec();
    arguments.extend(["--wait".to_owned(), "--timeout=2m".to_owned()]);
    // A new image under the same tag replaces the operator's pod.
    if let Some(operator) = images.iter().find(|image| image.name == operator_image()) {
        arguments.extend(set("podAnnotations.swiftbalancer\\.io/image", &operator.digest));
    }
    let images = [operator_image(), runtime_image(), gpu_runtime_image()];
    for (prefix, image) in ["image", "runtime.image", "runtime.gpuImage"].into_iter().zip(images) {
        let (repository, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
        arguments.extend(set(&format!("{prefix}.repository"), repository));
        arguments.extend(set(&format!("{prefix}.tag"), tag));
    }
    arguments
}

/// Arguments of `helm` that remove it.
#[must_use]
pub fn uninstall_arguments() -> Vec<String> {
    ["uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found", "--wait"].map(str::to_owned).to_vec()
}
