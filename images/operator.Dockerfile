# docker.io/swiftbalancer/operator. `make images` puts root/ together (the binary, the shared libraries that it names, a
# user without rights) and builds this file itself, with no Docker; with Docker it is
#   docker build -f images/operator.Dockerfile target/images/operator
FROM scratch
COPY root/ /
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/swiftbalancer-operator"]
