//! What shapes of models and groups the kernels are made for, so that others are refused before anything of them is read. Pure.

use super::parameters::{MOST_CHOSEN, MOST_RANKS, MOST_SLOTS};
use crate::backend::PageShape;
use crate::batch::StepLimits;
use crate::error::DeviceError;
use crate::routing::GroupShape;

/// What the widths of all layers are multiples of: what one load of a kernel takes.
pub(super) const WIDTHS: usize = 8;

/// Elements of an attention head at most.
const MOST_DIMENSION: usize = 256;

/// That the kernels can serve such a model in such a group.
pub(super) fn check(limits: &StepLimits, group: GroupShape, page: PageShape) -> Result<(), DeviceError> {
    check_width("a layer", limits.hidden)?;
    check_width("a feed-forward network", limits.intermediate)?;
    check_page(page)?;
    check_heads(limits)?;
    check_group(group)
}

/// That the kernels can multiply by the networks of such pages.
pub(super) fn check_page(PageShape { hidden, intermediate, .. }: PageShape) -> Result<(), DeviceError> {
    check_width("a feed-forward network", hidden)?;
    check_width("a feed-forward network", intermediate)
}

/// That the kernels can multiply rows of this width.
pub(super) fn check_width(what: &str, width: usize) -> Result<(), DeviceError> {
    if width.is_multiple_of(WIDTHS) {
        return Ok(());
    }
    let reason = format!(
        "the CUDA kernels need widths that are multiples of {WIDTHS}, and {what} has {width}; serve this model with --backend cpu"
    );
    Err(DeviceError::Unusable { reason })
}

/// That the kernels can attend with such heads.
pub(super) fn check_heads(StepLimits { heads, .. }: &StepLimits) -> Result<(), DeviceError> {
    check_width("an attention head", heads.dimension)?;
    if heads.dimension <= MOST_DIMENSION {
        return Ok(());
    }
    let reason = format!(
        "the CUDA kernels take attention heads of {MOST_DIMENSION} elements at most, and this model has {}; serve it with \
         --backend cpu",
        heads.dimension
    );
    Err(DeviceError::Unusable { reason })
}

/// That the kernels can route tokens in such a group.
pub(super) fn check_group(GroupShape { ranks, slots, top_k, .. }: GroupShape) -> Result<(), DeviceError> {
    for (what, count, most, advice) in [
        ("ranks", ranks, MOST_RANKS, "start fewer"),
        ("slots of a layer on each rank", slots, MOST_SLOTS, "start more ranks, lower the redundancy"),
        ("experts of each token", top_k, MOST_CHOSEN, "serve another model"),
    ] {
        if count > most {
            let reason = format!(
                "the CUDA kernels take {most} {what} at most, and this group has {count}; {advice}, or use --backend cpu"
            );
            return Err(DeviceError::Unusable { reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::HeadShape;
    use crate::tensor::WeightKind;

    const PAGE: PageShape = PageShape { hidden: 64, intermediate: 24, kind: WeightKind::Bf16 };
    const GROUP: GroupShape = GroupShape { ranks: 256, rank: 0, layers: 4, slots: 1024, top_k: 64, tokens: 16 };

    fn limits() -> StepLimits {
        let heads = HeadShape { query: 4, key_value: 2, dimension: 256 };
        StepLimits { hidden: 64, intermediate: 40, heads, ..StepLimits::default() }
    }

    fn heads(dimension: usize) -> StepLimits {
        StepLimits { heads: HeadShape { dimension, ..limits().heads }, ..limits() }
    }

    #[test]
    fn what_the_kernels_are_not_made_for_is_refused_with_what_was_found_what_is_the_most_and_what_to_do() {
        assert_eq!(check(&limits(), GROUP, PAGE), Ok(()), "the largest that they are made for");
        let widths = "the CUDA kernels need widths that are multiples of 8, and ";
        let cpu = "; serve this model with --backend cpu";
        let most = |rest: &str| format!("the CUDA kernels take {rest}, or use --backend cpu");
        for (limits, group, page, said) in [
            (StepLimits { hidden: 20, ..limits() }, GROUP, PAGE, format!("{widths}a layer has 20{cpu}")),
            (
                StepLimits { intermediate: 12, ..limits() },
                GROUP,
                PAGE,
                format!("{widths}a feed-forward network has 12{cpu}"),
            ),
            (
                limits(),
                GROUP,
                PageShape { intermediate: 9, ..PAGE },
                format!("{widths}a feed-forward network has 9{cpu}"),
            ),
            (heads(20), GROUP, PAGE, format!("{widths}an attention head has 20{cpu}")),
            (
                heads(264),
                GROUP,
                PAGE,
                "the CUDA kernels take attention heads of 256 elements at most, and this model has 264; serve it with \
                 --backend cpu"
                    .to_owned(),
            ),
            (
                limits(),
                GroupShape { ranks: 257, ..GROUP },
                PAGE,
                most("256 ranks at most, and this group has 257; start fewer"),
            ),
            (
                limits(),
                GroupShape { slots: 1025, ..GROUP },
                PAGE,
                most(
                    "1024 slots of a layer on each rank at most, and this group has 1025; start more ranks, lower the \
                     redundancy",
                ),
            ),
            (
                limits(),
                GroupShape { top_k: 65, ..GROUP },
                PAGE,
                most("64 experts of each token at most, and this group has 65; serve another model"),
            ),
        ] {
            let refused = check(&limits, group, page).unwrap_err();
            assert_eq!(refused.to_string(), said);
            assert!(refused.is_permanent() && said.len() <= 300, "{said}");
        }
    }
}
