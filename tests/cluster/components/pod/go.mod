module swiftbalancer.io/pod

go 1.26.0
