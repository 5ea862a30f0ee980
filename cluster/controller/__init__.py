"""Controllers: a reconcile function over informers and a work queue, and the election of the one that runs it."""
