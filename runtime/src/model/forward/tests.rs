use super::*;

#[test]
fn angles_far_out_are_those_of_the_reference() {
    let json =
        br#"{"model_type": "qwen3_moe", "head_dim": 16, "rope_theta": 1000000, "max_position_embeddings": 40960}"#;
    let config = Config::from_json(json).unwrap();
    // torch 2.15: a = 40000.0 * (1.0 / (1e6 ** (torch.arange(0, 16, 2, dtype=torch.float) / 16))); a.cos(), a.sin()
    let expected = [
        0.322_587_46,
        0.851_525_66,
        -0.407_842_4,
        0.307_580_02,
        -0.666_938_07,
        0.674_925_6,
        0.301_137_6,
        0.974_808_3,
        0.946_539_64,
        0.524_312_9,
        0.913_052_3,
        -0.951_522_23,
        0.745_113_13,
        0.737_885_7,
        0.953_580_74,
        0.223_044_5_f32,
    ];
    let angles = rope_angles(&config, 40_001);
    for (found, expected) in angles[40_000 * 16..].iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
    }
}
