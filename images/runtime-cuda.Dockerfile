# docker.io/swiftbalancer/runtime-cuda: the runtime with kernels for GPUs, and NCCL; no CUDA toolkit. The driver is the node's: its
# container runtime puts it into the container. `make images` puts root/ together (the runtime, the program that downloads checkpoints,
# the shared libraries that they name, NCCL, a user without rights) and builds this file itself, with no Docker; with Docker it is
#   docker build -f images/runtime-cuda.Dockerfile target/images/runtime-cuda
FROM scratch
COPY root/ /
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Ranks that share a GPU wait for each other on streams of their own, which more queues of the hardware keep apart; 8 is its own number.
ENV CUDA_DEVICE_MAX_CONNECTIONS=32
USER 65532:65532
EXPOSE 8000 8001 8002 8003 8004 8005
ENTRYPOINT ["/usr/local/bin/swiftbalancer-runtime"]
