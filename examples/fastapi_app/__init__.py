"""A parcel-tracking service: parcels are booked, scanned on their way, followed live and delivered."""
