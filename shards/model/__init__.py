"""The vocabulary every room shares: resources, refs, partitions, versions, selectors, errors. All pure."""
