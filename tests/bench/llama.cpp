// Tokens per second of llama.cpp on the CPU, through its C API.
//
//   bench-llama run MODEL.gguf PROMPTS CASES exact|default THREADS SECONDS   one JSON line for each case
//   bench-llama hop                                                        nanoseconds of a cache line between two cores
//
// CASES is a comma-separated list. ppN: prefill of N prompts of 512 tokens, logits of the last position. tgN: greedy decode
// of N sequences, 128 steps after prompts of 64 tokens. "exact" computes attention in f32 without flash attention, which
// is what agrees with the float32 reference to 1e-5; "default" is what a user gets, with a half-precision cache.
#include "llama.h"
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

using Tokens = std::vector<llama_token>;

static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static double hop_nanoseconds() {
    std::atomic<int> turn{0};
    const int hops = 400000;
    std::thread other([&] {
        for (int i = 1; i < 2 * hops; i += 2) { while (turn.load() != i) {} turn.store(i + 1); }
    });
    const double start = now();
    for (int i = 0; i < 2 * hops; i += 2) { turn.store(i + 1); while (turn.load() != i + 2) {} }
    other.join();
    return (now() - start) * 1e9 / (2 * hops);
}

static std::vector<Tokens> read_prompts(const char * path) {
    std::ifstream file(path);
    std::vector<Tokens> prompts;
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        Tokens tokens;
        for (int token; words >> token;) tokens.push_back(token);
        if (!tokens.empty()) prompts.push_back(tokens);
    }
    return prompts;
}

struct Bench {
    llama_model * model;
    int vocabulary;
    llama_context * context = nullptr;
    llama_batch batch{};

    void open(int sequences, int tokens_each, int threads, bool exact) {
        auto settings = llama_context_default_params();
        settings.n_ctx = settings.n_batch = sequences * tokens_each;
        settings.n_ubatch = 512;
        settings.n_seq_max = sequences;
        settings.n_threads = settings.n_threads_batch = threads;
        settings.no_perf = true;
        if (exact) {
            settings.type_k = settings.type_v = GGML_TYPE_F32;
            settings.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
        }
        context = llama_init_from_model(model, settings);
        if (!context) { fprintf(stderr, "no context\n"); exit(1); }
        batch = llama_batch_init(settings.n_batch, 0, 1);
    }
    void close() { llama_batch_free(batch); llama_free(context); }
    void add(llama_token token, int position, int sequence, bool wants_logits) {
        const int i = batch.n_tokens++;
        batch.token[i] = token; batch.pos[i] = position; batch.n_seq_id[i] = 1; batch.seq_id[i][0] = sequence;
        batch.logits[i] = wants_logits;
    }
    void decode() { if (llama_decode(context, batch)) { fprintf(stderr, "decode failed\n"); exit(1); } }
    int best(int row) {
        const float * logits = llama_get_logits_ith(context, row);
        return int(std::max_element(logits, logits + vocabulary) - logits);
    }
    Tokens prefill(const std::vector<Tokens> & prompts, int sequences, int length) {
        llama_memory_clear(llama_get_memory(context), true);
        batch.n_tokens = 0;
        for (int s = 0; s < sequences; s++)
            for (int i = 0; i < length; i++) add(prompts[s][i], i, s, i + 1 == length);
        decode();
        Tokens next;
        for (int s = 0; s < sequences; s++) next.push_back(best((s + 1) * length - 1));
        return next;
    }
    // One repetition of a case: adds the tokens and the seconds it took.
    void once(const std::vector<Tokens> & prompts, bool is_prefill, int sequences, double & tokens, double & seconds) {
        const int steps = 128, prompt = is_prefill ? 512 : 64;
        double start = now();
        Tokens next = prefill(prompts, sequences, prompt);
        if (is_prefill) { seconds += now() - start; tokens += sequences * prompt; return; }
        start = now();
        for (int step = 0; step < steps; step++) {
            batch.n_tokens = 0;
            for (int s = 0; s < sequences; s++) add(next[s], prompt + step, s, true);
            decode();
            for (int s = 0; s < sequences; s++) next[s] = best(s);
        }
        seconds += now() - start;
        tokens += sequences * steps;
    }
};

int main(int count, char ** arguments) {
    if (count == 2 && std::string(arguments[1]) == "hop") { printf("%.0f\n", hop_nanoseconds()); return 0; }
    if (count != 8 || std::string(arguments[1]) != "run") {
        fprintf(stderr, "usage: bench-llama run MODEL.gguf PROMPTS CASES exact|default THREADS SECONDS | hop\n");
        return 2;
    }
    llama_log_set([](ggml_log_level level, const char * text, void *) {
        if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
    }, nullptr);
    llama_backend_init();
    Bench bench{llama_model_load_from_file(arguments[2], llama_model_default_params()), 0};
    if (!bench.model) return 1;
    bench.vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(bench.model));
    const auto prompts = read_prompts(arguments[3]);
    const bool exact = std::string(arguments[5]) == "exact";
    const int threads = atoi(arguments[6]);
    const double least_seconds = atof(arguments[7]);

    std::istringstream cases(arguments[4]);
    for (std::string name; std::getline(cases, name, ',');) {
        const bool is_prefill = name.compare(0, 2, "pp") == 0;
        const int sequences = atoi(name.c_str() + 2);
        bench.open(sequences, is_prefill ? 512 : 256, threads, exact);
        double tokens = 0, seconds = 0;
        bench.once(prompts, is_prefill, sequences, tokens, seconds);
        tokens = seconds = 0;
        while (seconds < least_seconds) bench.once(prompts, is_prefill, sequences, tokens, seconds);
        printf("{\"case\": \"%s\", \"tokens_per_second\": %.1f}\n", name.c_str(), tokens / seconds);
        fflush(stdout);
        bench.close();
    }
}
