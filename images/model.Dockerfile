# A model as an image volume: the checkpoint's files at the root, nothing to run.
#   docker build -f images/model.Dockerfile target/images/tiny-moe
FROM scratch
COPY root/ /
