# syntax=docker/dockerfile:1
FROM golang:1.26.8 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /out/belfry ./cmd/belfry \
 && mkdir /out/data

# Certificates, time zones, a user without rights, and nothing else.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/belfry /usr/local/bin/belfry
# For the health checks of docker-compose.yml; there is no shell.
COPY --from=busybox:1.37.0-musl /bin/busybox /usr/local/bin/wget
# Where the embedded Kafka keeps its data when no other is configured.
COPY --from=build --chown=nonroot:nonroot /out/data /var/lib/belfry
WORKDIR /var/lib/belfry
VOLUME /var/lib/belfry
# In a container loopback reaches nobody.
ENV BELFRY_LISTEN=0.0.0.0:8080
EXPOSE 8080
ENTRYPOINT ["belfry"]
CMD ["serve"]
