# docker.io/swiftbalancer/runtime. `make images` puts root/ together (the runtime, the program that downloads checkpoints, the
# shared libraries that they name, a user without rights) and builds this file itself, with no Docker; with Docker it is
#   docker build -f images/runtime.Dockerfile target/images/runtime
FROM scratch
COPY root/ /
USER 65532:65532
EXPOSE 8000 8001 8002 8003 8004 8005
ENTRYPOINT ["/usr/local/bin/swiftbalancer-runtime"]
