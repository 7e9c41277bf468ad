# docker.io/swiftbalancer/test-pod: holds a pod's namespaces open on the test cluster's nodes, and what the harness's own
# tests run in a pod.
FROM scratch
COPY root/ /
ENTRYPOINT ["/pod"]
CMD ["pause"]
