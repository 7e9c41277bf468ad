# make demo                  the main job, from source to a balanced second deployment
# make demo CONTEXT=name     the same on a cluster of yours
# make test                  every test; says loudly what could not run here
# make images                the images, as OCI archives in target/images/archives
# make cluster-up            the test cluster, to look around in; make cluster-down takes it down

CONTEXT ?=

.PHONY: demo test images cluster-up cluster-down

demo:
	cargo run --locked --release --package tests --bin demo -- $(if $(CONTEXT),--context '$(CONTEXT)')

test:
	cargo test --locked --workspace --no-fail-fast
	@for file in target/figures/*.txt; do [ ! -e "$$file" ] || { echo "Figures of $$file"; cat "$$file"; }; done

images:
	cargo run --locked --release --package tests --bin cluster -- images

cluster-up:
	cargo run --locked --release --package tests --bin cluster -- up

cluster-down:
	cargo run --locked --release --package tests --bin cluster -- down
