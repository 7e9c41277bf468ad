# make demo                  the main job, from source to a balanced second deployment
# make demo CONTEXT=name     the same on a cluster of yours
# make test                  every test; says loudly what could not run here
# make bench                 speed beside llama.cpp and transformers, which it installs (6 GB), what serving adds, what moving
#                            costs and pays
# make bench-plan            the planner beside other planners; RECORDED=DIR adds recorded loads, CHECK=1 fails on a missed
#                            target, QUICK=1 takes seconds; TUNING=1 writes docs/tuning.md instead: what half and twice each of
#                            the planner's numbers does
# make endurance            MINUTES=20 of load while experts move and ranks are killed: no wrong token, no lost request, and
#                            nothing that grows
# make test-kernels CASE=x  the emulated GPU's tests whose name contains x, with the .cu files of the kernels as they are now: only those are
#                            compiled, the rest is as the last `cargo test -p tests --test cuda` left it
# make removals             leaves out every wait of the kernels and of the device layer, one by one: a test has to fail each time
# make test-gpu             the tests of the CUDA engine on this machine's GPU; says why where it has none
# make gpu-bundle           what a machine with a GPU and nothing else needs to measure, in target/gpu
# make bench-gpu            measures this machine's GPU with it, see docs/gpu.md
# make images                the images, as OCI archives in target/images/archives; installs the CUDA compiler and
#                            NCCL (750 MB), and leaves the image for GPUs out where it cannot
# make krew URL=...          the plugin as an archive for this machine, and the manifest by which krew installs it and those of
#                            other machines that lie beside it in target/krew, all fetched from URL
# make dashboards            Grafana's dashboards of the chart, written anew by the program in dashboards/
# make dashboards-check      a Prometheus that scrapes the runtime under a load that shifts: every query of every dashboard has data there;
#                            draws each in docs/dashboards, which needs Chromium
# make cluster-up            the test cluster, to look around in; make cluster-down takes it down

CONTEXT ?=
RECORDED ?=
MINUTES ?= 20
loads = $(CURDIR)/target/plan-loads

.PHONY: demo test test-kernels removals test-gpu bench bench-gpu bench-plan endurance gpu-bundle images krew dashboards dashboards-check cluster-up cluster-down

demo:
	cargo run --locked --release --package tests --bin demo -- $(if $(CONTEXT),--context '$(CONTEXT)')

test:
	cargo test --locked --workspace --no-fail-fast
	@for file in target/figures/*.txt; do [ ! -e "$$file" ] || { echo "Figures of $$file"; cat "$$file"; }; done

bench: model = examples/models/tiny-moe
bench:
	cargo bench --locked --package runtime --bench movement --bench gain --bench serving --bench coordinator
	cargo build --locked --release --package runtime --example engine-bench
	python3 tests/bench/peers.py target/release/examples/engine-bench "$$(tests/bench/setup.sh $(model))" $(model)

bench-plan:
	tests/bench/plan/make_loads.sh $(loads) $(RECORDED)
	cargo bench --locked --package plan --bench planner -- --loads $(loads) $(if $(CHECK),--check) $(if $(QUICK),--quick) \
	  $(if $(TUNING),--tuning $(CURDIR)/docs/tuning.md) $(SECTION)

test-kernels:
	@program="$$(ls -t target/debug/deps/cuda-* 2>/dev/null | grep -v '[.]d$$' | head -n 1)"; \
	  [ -n "$$program" ] || { echo "first: cargo test --locked --package tests --no-default-features --test cuda --no-run"; exit 1; }; \
	  cd tests && "../$$program" $(CASE)

removals:
	SWIFTBALANCER_EMULATOR=required SWIFTBALANCER_REMOVALS=1 cargo test --locked --package tests --no-default-features --test cuda removals::

test-gpu:
	SWIFTBALANCER_GPU=asked cargo test --locked --package tests --no-default-features --test cuda

gpu-bundle:
	tests/gpu/bundle.sh

bench-gpu: gpu-bundle
	OUT=target/gpu-figures/right tests/gpu/measure.sh right
	OUT=target/gpu-figures/fast tests/gpu/measure.sh fast

endurance:
	cargo bench --locked --package runtime --bench endurance -- --minutes $(MINUTES)

images:
	SWIFTBALANCER_NVCC="$$(kernels/cu/toolchain.sh || true)" cargo run --locked --release --package tests --bin cluster -- images

krew: platform = $(shell uname -s | tr '[:upper:]' '[:lower:]')-$(shell uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
krew:
	cargo build --locked --release --package kubectl-moe
	mkdir -p target/krew
	tar --create --gzip --file target/krew/kubectl-moe-$(platform).tar.gz LICENSE --directory target/release kubectl-moe \
	  kubectl_complete-moe
	kubectl-moe/krew.sh '$(URL)' target/krew/*.tar.gz > target/krew/moe.yaml

dashboards:
	cd dashboards && GOWORK=off go run . ../charts/swiftbalancer/files/dashboards

dashboards-check:
	SWIFTBALANCER_DASHBOARDS=draw cargo test --locked --package tests --test dashboards -- --nocapture

cluster-up:
	cargo run --locked --release --package tests --bin cluster -- up

cluster-down:
	cargo run --locked --release --package tests --bin cluster -- down
